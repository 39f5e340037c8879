"""What a result is saved as, by the end of the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from fastbts import labels as schemes
from fastbts.errors import OptionsError
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem
from fastbts.write.nrrd import SUFFIX as NRRD_SUFFIX


class Kind(Enum):
    """A kind of file that holds labels or their volumes."""

    NIFTI = "NIfTI"
    NRRD = "segmentation of 3D Slicer"
    SEG = "DICOM segmentation"
    SR = "DICOM structured report"


DICOM_SUFFIX = ".dcm"
_SR = re.compile(r"(^|[._-])sr\.dcm$", re.IGNORECASE)
SUFFIXES = (*IMAGE_SUFFIXES, NRRD_SUFFIX, DICOM_SUFFIX)


def kind_of(path: str | Path) -> Kind:
    """The kind of file that a name stands for: `sr.dcm` or `x.sr.dcm` is the report.

    Raises:
        OptionsError: It ends in none of `SUFFIXES`.
    """
    name = Path(path).name.lower()
    if _SR.search(name):
        return Kind.SR
    kinds = {NRRD_SUFFIX: Kind.NRRD, DICOM_SUFFIX: Kind.SEG}
    for suffix in SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return kinds.get(suffix, Kind.NIFTI)
    raise OptionsError(
        f"{path}: expected a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; "
        "rename the output"
    )


def check_no_dicom(paths: Iterable[str | Path]) -> None:
    """Raises OptionsError if one is DICOM, for a result that is not on a DICOM series."""
    for path in paths:
        if kind_of(path) in (Kind.SEG, Kind.SR):
            raise OptionsError(
                f"{path}: this result is not on a DICOM series; segment the DICOM study (fastbts "
                "study, fastbts.read_study), or write .nii.gz or .seg.nrrd"
            )


def check_regions(
    paths: Iterable[str | Path], scheme: str | None, regions: Mapping[str, Sequence[int]]
) -> None:
    """Raises OptionsError for a kind of file or a scheme that a result's regions do not have.

    Args:
        paths: Files to write.
        scheme: See `Segmentation.save`.
        regions: Region -> its labels.
    """
    if schemes.is_glioma(regions):
        return
    found = f"this result has the regions {', '.join(regions)}"
    if scheme in schemes.SCHEMES:
        raise OptionsError(
            f"label scheme {scheme!r}: expected WT, TC and ET, {found}; leave the scheme out, "
            f"or give {schemes.REGION_SCHEME!r}"
        )
    for path in paths:
        if kind_of(path) is not Kind.NIFTI:
            raise OptionsError(f"{path}: expected WT, TC and ET, {found}; write .nii.gz")


def sidecar_of(path: Path) -> Path:
    """The report's file if nobody names another: `x.json` for `x.nii.gz`, else `x.dcm.json`."""
    stem = image_stem(path) if kind_of(path) is Kind.NIFTI else path.name
    return path.with_name(f"{stem}.json")
