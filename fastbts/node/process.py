"""What the node does with a study: from images to a segmentation and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastbts.node.node import Process
from fastbts.progress import Progress
from fastbts.segmenter import Segmenter
from fastbts.study.study import read_study
from fastbts.write.dicom_headers import reference_headers
from fastbts.write.outputs import REPORT, SEG, SR

READ = 0.6  # share of reading, choosing, registering and stripping of the whole


def segmenting(
    segmenter: Segmenter, *, fractional: bool = False, report: bool = True, **options: Any
) -> Process:
    """Makes the process that segments a study.

    Args:
        segmenter: Finds the tumour; used for all studies.
        fractional: Whether the DICOM-SEG holds probabilities.
        report: Whether the structured report is sent, too; some archives refuse it.
        options: Of `read_study`; what may be missing is up to the segmenter.
    Returns:
        A function that writes a DICOM-SEG and a structured report (the report alone if there is no
        tumour: DICOM has no segmentation without a segment), and report.json beside them.
    """

    def process(images: Path, out: Path, progress: Progress) -> Sequence[Path]:
        study = read_study(
            images,
            optional=segmenter.spec.optional_modalities,
            progress=lambda stage, done: progress(stage, READ * done),
            **options,
        )
        reference_headers(study.series.files)  # before the work
        result = study.segment(
            segmenter, lambda stage, done: progress(stage, READ + (1 - READ) * done)
        )
        written = result.save([out / SEG, out / SR], sidecar=out / REPORT, fractional=fractional)
        sent = (SEG, SR) if report else (SEG,)
        return [path for path in written if path.name in sent]

    return process
