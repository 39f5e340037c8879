"""Label images: reference segmentations of labelled cases, and written results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, InputError
from fastbts.read.nifti import read_header, read_voxels
from fastbts.spec import EngineSpec

REFERENCE_SUFFIXES = ("seg.nii.gz", "seg.nii")
MAX_LABEL = 4  # of all label schemes
ROUNDING = 1e-3  # largest distance from an integer: float labels in scaled integers are not exact


def find_reference(folder: Path) -> Path | None:
    """The reference segmentation of a case folder, a file `*seg.nii.gz`; None if there is none.

    Raises:
        CaseError: There are several, or the folder cannot be listed.
    """
    try:
        found = sorted(p for p in folder.iterdir() if p.name.lower().endswith(REFERENCE_SUFFIXES))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{folder}: cannot list: {reason}; expected a case folder") from error
    if len(found) > 1:
        raise CaseError(
            f"{folder}: expected one reference segmentation *seg.nii.gz, got "
            f"{', '.join(p.name for p in found)}; remove all but one"
        )
    return found[0] if found else None


def read_reference(path: Path) -> NDArray[np.uint8]:
    """A reference segmentation (i, j, k) in values of `brats2021`; reads 3 of BraTS 2023 as 4.

    Raises:
        InputError, GeometryError: See `read_labels`.
    """
    labels = read_labels(path)
    return np.where(labels == 3, np.uint8(4), labels)


def read_reference_of(spec: EngineSpec, path: Path) -> NDArray[np.uint8]:
    """A reference segmentation (i, j, k) in the labels of an engine; for WT, TC and ET see
    `read_reference`, for other regions as stored, up to 255.

    Raises:
        InputError, GeometryError: See `read_labels`.
    """
    return read_reference(path) if spec.is_glioma else read_labels(path, 255)


def read_labels(path: Path, most: int = MAX_LABEL) -> NDArray[np.uint8]:
    """A label image (i, j, k) with its values as stored; it may have one value only.

    Args:
        path: A .nii or .nii.gz file.
        most: Largest label, at most 255.
    Raises:
        InputError: The file cannot be read as a 3-D image, or a value is not an integer from 0 to
            `most`.
        GeometryError: Its voxel grid cannot be used.
    """
    header = read_header(path)
    values = np.empty(header.geometry.shape[::-1], header.dtype).T
    read_voxels(header, values, labels=True)
    slope = float(header.nifti["scl_slope"])  # 0 or NaN: not scaled
    if header.as_stored and slope > 0:  # a slope that images do without, see `scaling_of`
        values = values * slope
    labels = np.clip(np.rint(values), 0, most)
    wrong = np.abs(values - labels) > ROUNDING
    if wrong.any():
        raise InputError(
            f"{path}: expected labels, integers from 0 to {most}, got {values[wrong][0]:g} "
            f"({np.count_nonzero(wrong)} voxels are no label); is this a segmentation? Export it "
            "again"
        )
    return labels.astype(np.uint8)
