"""The study maker: files of a scanner, known movements, equal bytes for equal arguments."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts.errors import DeviceError
from fastbts.phantom.study import DWI, FLAIR, SCANS, T1CE, StudyCase, coarser, movement, write_study
from tests.study.made import head

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyCase:
    return write_study(head(), tmp_path_factory.mktemp("study"), coarser(SCANS, 8))


def test_names_of_files_tell_nothing(study: StudyCase) -> None:
    paths = sorted(study.folder.iterdir())
    assert sorted(path for files in study.files.values() for path in files) == paths
    assert all(len(path.name) == 12 and not path.suffix for path in paths)
    owners = [next(t for t, files in study.files.items() if path in files) for path in paths]
    changes = sum(a != b for a, b in itertools.pairwise(owners))
    assert changes > len(paths) / 3, "series are mixed"


def test_headers(study: StudyCase) -> None:
    by_text = {text: pydicom.dcmread(files[0]) for text, files in study.files.items()}
    flair, t1ce = by_text[FLAIR.text], by_text[T1CE.text]
    assert (flair.EchoTime, flair.RepetitionTime, flair.InversionTime) == (93, 9000, 2500)
    assert list(flair.ScanningSequence) == ["SE", "IR"]
    assert "ContrastBolusAgent" not in flair
    assert t1ce.ContrastBolusAgent == "GADOVIST"
    assert by_text[DWI.text].DiffusionBValue == 1000
    assert len({d.SeriesInstanceUID for d in by_text.values()}) == 6
    assert len({d.StudyInstanceUID for d in by_text.values()}) == 1
    assert len({d.FrameOfReferenceUID for d in by_text.values()}) == 1
    assert str(flair.PatientName) == "Phantom^Fast"


def test_a_movement_by_hand() -> None:
    """A quarter turn about z, the middle stays but for the shift."""
    middle = np.array([10.0, 20, 30])
    moved = movement(replace(FLAIR, degrees=(0, 0, 90), mm=(1, 2, 3)), middle)
    np.testing.assert_allclose(moved @ [10, 20, 30, 1], [11, 22, 33, 1])
    np.testing.assert_allclose(moved @ [11, 20, 30, 1], [11, 23, 33, 1], atol=1e-9)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)


def test_the_t1ce_is_not_moved(study: StudyCase) -> None:
    np.testing.assert_array_equal(study.truth[T1CE.text], np.eye(4))
    assert study.geometry.difference(head().volume.geometry) is None
    assert np.array_equal(study.labels, head().labels)


def test_equal_arguments_give_equal_files(study: StudyCase, tmp_path: Path) -> None:
    again = write_study(head(), tmp_path, coarser(SCANS, 8))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        p.name for p in sorted(study.folder.iterdir())
    ]
    path = again.files[FLAIR.text][3]
    assert path.read_bytes() == (study.folder / path.name).read_bytes()
    other = write_study(head(), tmp_path / "other", coarser([FLAIR], 8), seed=1)
    assert not {p.name for p in other.folder.iterdir()} & {p.name for p in tmp_path.iterdir()}


def test_another_patient(tmp_path: Path) -> None:
    made = write_study(head(), tmp_path, coarser([FLAIR], 8), patient={"PatientID": "X"})
    assert pydicom.dcmread(made.files[FLAIR.text][0]).PatientID == "X"


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.uid", None)
    with pytest.raises(DeviceError, match=r"pip install 'fastbts\[dicom\]'"):
        write_study(head(), tmp_path, coarser([FLAIR], 8))
