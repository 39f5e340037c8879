"""Results on disk: where they are, their reports, and the volumes of their masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import FastBTSError, InputError, quietly
from fastbts.formats.dicom import holds_dicom
from fastbts.labels import ENGINE_SCHEME, REGION_SCHEME, SCHEMES
from fastbts.read.nifti import read_header
from fastbts.read.reference import read_labels
from fastbts.write.kinds import SUFFIXES
from fastbts.write.nifti import IMAGE_SUFFIXES
from fastbts.write.ours import UNREADABLE, is_ours, listed_files, read_report
from fastbts.write.outputs import REPORT

FOLDERS = ("*", "sub-*/anat", "sub-*/ses-*/anat", "ses-*/anat")
"""Where results are in a folder: in folders of cases, or as in a BIDS dataset."""
VOLUME_TOLERANCE = 1e-4  # relative: precision of a voxel's volume from a float32 affine


@dataclass(frozen=True)
class SavedResult:
    """A result on disk.

    Attributes:
        path: Of its report.
        report: As `Segmentation.report`, with the files.
        volumes_ml: Of each region, counted in its masks; of the report if it has no NIfTI masks.
        date: Of the examination, from a DICOM object of the result; None if it has none.
        warnings: What is unusual about the files.
    """

    path: Path
    report: Mapping[str, Any]
    volumes_ml: Mapping[str, float]
    date: date | None = None
    warnings: tuple[str, ...] = ()


def read_result(place: str | Path) -> SavedResult:
    """Reads a result of fastbts.

    Args:
        place: Its folder, report, or an image of it.
    Raises:
        InputError: There is none, or there are several; its report or a mask is damaged.
    """
    reports, unlisted = results_in(place)
    if len(reports) != 1:
        found = f"{len(reports)} results" if reports else f"{unlisted[0].name} without a report"
        raise InputError(
            f"{place}: expected one result of fastbts, got {found}; name the folder, report or "
            "image of one"
        )
    (path,) = reports
    try:
        report = read_report(path)
        stated = {str(name): float(ml) for name, ml in report["volumes_ml"].items()}
        files = {
            path.with_name(name): str(digest) for name, digest in report["files_sha256"].items()
        }
        _check_complete(report)
        counted, warnings = _of_masks(files, report, stated)
    except FastBTSError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path}: no report of fastbts: {type(error).__name__}: {error}; expected the folder "
            "of a result that `fastbts predict` wrote"
        ) from error
    return SavedResult(path, report, counted, _date(files), tuple(warnings))


def _check_complete(report: Mapping[str, Any]) -> None:
    """Raises one of UNREADABLE if something is missing that every report has."""
    for name in ("engine", "input", "software"):
        dict(report[name])
    _ = report["engine"]["name"], report["label_scheme"], report["input"]["orientation"]
    _ = [*report["input"]["shape"]], [float(mm) for mm in report["input"]["spacing_mm"]]
    _ = [str(text) for text in report["warnings"]], len(report["confidence"])


def _of_masks(
    files: Mapping[Path, str], report: dict[str, Any], stated: dict[str, float]
) -> tuple[dict[str, float], list[str]]:
    """Volumes counted in the masks, and warnings if they are not those of the report."""
    images = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
    lost = [path.name for path in images if not path.is_file()]
    if lost:
        return stated, [f"{', '.join(lost)}: missing; the volumes are those of the report"]
    if not images:
        return stated, []
    counted = counted_ml(images, report)
    if are_equal_ml(counted, [*stated.values()]):
        return stated, []
    names = ", ".join(path.name for path in images)
    warning = f"{names}: changed since the report was written; the volumes are those of the masks"
    return dict(zip(stated, counted, strict=True)), [warning]


def _date(files: Iterable[Path]) -> date | None:
    """Date of the examination (StudyDate) in a DICOM object; None without one, or without pydicom.

    It must be the object that fastbts wrote: others may be of another examination.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError:
        return None
    for path in files:
        if path.suffix.lower() == ".dcm" and is_ours(path):
            try:
                with quietly():
                    text = str(dcmread(path, specific_tags=["StudyDate"]).get("StudyDate", ""))
                return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
            except (OSError, ValueError, InvalidDicomError):
                continue
    return None


def results_in(place: str | Path) -> tuple[list[Path], list[Path]]:
    """What fastbts wrote in a folder and its `FOLDERS`; or a given report, or that of an image.

    Returns:
        The reports, and the images and previews that no report lists.
    Raises:
        InputError: There is none.
    """
    place = Path(place)
    if place.is_dir():
        found = {folder for pattern in FOLDERS for folder in place.glob(pattern)}
        folders = [place, *sorted(filter(Path.is_dir, found))]
        reports = [report for folder in folders for report in _reports(folder)]
        unlisted = list(_unlisted((path for f in folders for path in sorted(f.iterdir())), reports))
    elif place.name.endswith(".json") and place.is_file():
        reports, unlisted = [place], []
    else:
        beside = _reports(place.parent)
        reports = [report for report in beside if place.name in listed_files(report)]
        unlisted = list(_unlisted([place], reports))
    if not reports and not unlisted:
        if holds_dicom(place):
            raise InputError(
                f"{place}: DICOM, expected a result of fastbts; `fastbts study FOLDER` segments a "
                "DICOM study"
            )
        raise InputError(f"{place}: no {REPORT}; expected a folder that `fastbts predict` wrote")
    return reports, unlisted


def _reports(folder: Path) -> list[Path]:
    """Our reports, and a file with the usual name even if it is damaged."""
    found = sorted(folder.glob("*.json"))
    return [path for path in found if path.name == REPORT or listed_files(path)]


def _unlisted(paths: Iterable[Path], reports: list[Path]) -> Iterator[Path]:
    listed = {report.with_name(name) for report in reports for name in listed_files(report)}
    for path in paths:
        kind = path.name.lower().endswith((*SUFFIXES, ".png"))
        if kind and path not in listed and is_ours(path):
            yield path


def counted_ml(images: list[Path], report: dict[str, Any]) -> list[float]:
    """Volume of each region in the masks of a result, in the order of its report."""
    scheme, most = report["label_scheme"], {"most": 255} if "region_labels" in report else {}
    arrays: list[NDArray[Any]] = [read_labels(path, **most) for path in images]
    if scheme == ENGINE_SCHEME:
        arrays = [np.isin(arrays[0], labels) for labels in report["region_labels"].values()]
    elif scheme != REGION_SCHEME:
        ncr, _, et = SCHEMES[scheme].values()
        arrays = [arrays[0] > 0, np.isin(arrays[0], (ncr, et)), arrays[0] == et]
    voxel_ml = read_header(images[0]).geometry.voxel_ml
    return [int(np.count_nonzero(array)) * voxel_ml for array in arrays]


def are_equal_ml(counted: list[float], stated: list[float]) -> bool:
    """Whether counted volumes are those of the report, as exactly as a float32 affine is."""
    return len(counted) == len(stated) and np.allclose(
        counted, stated, rtol=VOLUME_TOLERANCE, atol=0
    )
