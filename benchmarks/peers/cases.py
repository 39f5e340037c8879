"""The images that contenders get: a synthetic case, a real one, and cubes of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import CaseError, read_case
from fastbts.phantom import make_case, write_case
from fastbts.read.reference import find_reference, read_reference

SYNTHETIC = "synthetic"
RAS = np.eye(4)


@dataclass(frozen=True, eq=False)
class Case:
    """A case in memory, for processes.

    Attributes:
        name: Of the case.
        images: A file with (4, Z, Y, X), so that each image has NIfTI's memory order.
        affine: Voxel index -> RAS+ position in mm.
        shape: Voxels along X, Y, Z.
        folder: The case as files; None for a cube.
        reference: Labels (X, Y, Z); None for a cube.
    """

    name: str
    images: Path
    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    folder: Path | None = None
    reference: NDArray[np.uint8] | None = None


def synthetic_case(work: Path) -> Case:
    """The phantom of `fastbts demo`."""
    folder = work / SYNTHETIC
    if not folder.is_dir():
        write_case(make_case(0), folder)
    return case_of(folder, work)


def case_of(folder: Path, work: Path) -> Case:
    """A labelled case folder with files as in BraTS 2021.

    Raises:
        CaseError: It has no reference segmentation.
        FastBTSError: See `fastbts.read_case`.
    """
    volume, path = read_case(folder), find_reference(folder)
    if path is None:
        raise CaseError(f"{folder}: no reference segmentation; add one file *seg.nii.gz")
    return _stored(
        folder.name, volume.data, volume.affine, work, folder=folder, reference=read_reference(path)
    )


def cube(case: Case, n: int, work: Path) -> Case:
    """Brain in n^3 voxels but for the outermost: the middle of a case's brain, mirrored.

    fastbts refuses images without background, whose brains it cannot compare.
    """
    images = np.load(case.images)
    brain = np.argwhere((images != 0).any(axis=0))
    inner = n - 2
    side = min(inner, 64, *images.shape[1:])
    starts = (brain.min(axis=0) + brain.max(axis=0) - side) // 2
    cut = images[(slice(None), *(slice(max(s, 0), max(s, 0) + side) for s in starts))]
    grown = np.pad(np.maximum(cut, 1), ((0, 0), *[(0, inner - side)] * 3), mode="symmetric")
    framed = np.pad(grown, ((0, 0), *[(1, 1)] * 3))
    return _stored(f"cube-{n}", framed.transpose(0, 3, 2, 1), RAS, work)


def _stored(
    name: str, images: NDArray[Any], affine: NDArray[np.float64], work: Path, **more: Any
) -> Case:
    path = work / f"{name}.npy"
    np.save(path, np.ascontiguousarray(images.transpose(0, 3, 2, 1)))
    return Case(name, path, affine, images.shape[1:], **more)
