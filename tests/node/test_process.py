"""Which of a study's results are sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastbts.node import process
from fastbts.node.process import segmenting


class FakeStudy:
    """Also its own segmenter and segmentation; without a tumour there is no DICOM-SEG."""

    def __init__(self, has_tumour: bool) -> None:
        self.spec, self.series, self.has_tumour = self, self, has_tumour
        self.files: tuple[Path, ...] = ()
        self.optional_modalities: tuple[str, ...] = ()

    def segment(self, segmenter: Any, progress: Any) -> FakeStudy:
        return self

    def save(self, paths: list[Path], sidecar: Path, fractional: bool) -> list[Path]:
        return [*(p for p in paths if self.has_tumour or p.name == "sr.dcm"), sidecar]


@pytest.mark.parametrize(
    ("has_tumour", "report", "sent"),
    [
        (True, True, ["seg.dcm", "sr.dcm"]),
        (True, False, ["seg.dcm"]),
        (False, True, ["sr.dcm"]),
        (False, False, []),
    ],
)
def test_what_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_tumour: bool, report: bool, sent: list[str]
) -> None:
    study: Any = FakeStudy(has_tumour)
    monkeypatch.setattr(process, "read_study", lambda images, **options: study)
    monkeypatch.setattr(process, "reference_headers", lambda files: None)
    run = segmenting(study, report=report)
    files = run(tmp_path, tmp_path, lambda stage, fraction: None)
    assert [path.name for path in files] == sent
