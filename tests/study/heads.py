"""Images for tests of registration, moved by known transforms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import Geometry, Volume
from fastbts.phantom import PhantomCase, make_case
from fastbts.phantom.skull import with_skull
from fastbts.phantom.study import FLAIR, T1, T2, acquire, movement

Matrix = NDArray[np.float64]

SCANS = {1: T1, 3: FLAIR, 5: T2}
"""By thickness of the slices in mm."""
NEAR = {"degrees": (6, -4, 9), "mm": (8, -6, 15)}
FAR = {"degrees": (12, -10, 15), "mm": (30, -30, 33)}
TURNED = {"degrees": (25, 10, -20), "mm": (-20, 25, -40)}
MOVEMENTS = {"near": NEAR, "far": FAR, "turned": TURNED}


@dataclass(frozen=True, eq=False)
class Image:
    """An image as `register` takes it."""

    label: str
    voxels: NDArray[Any]
    geometry: Geometry

    @property
    def volume(self) -> Volume:
        """Of this image alone."""
        voxels = self.voxels[None].astype(np.float32)
        return Volume(voxels, self.geometry.affine, (self.label,))

    def slices(self, first: int, end: int) -> Image:
        """Some slices along the third axis."""
        affine = self.geometry.affine.copy()
        affine[:3, 3] += first * affine[:3, 2]
        voxels = self.voxels[:, :, first:end]
        return Image(self.label, voxels, Geometry(voxels.shape, affine))


def moved(image: Image, slices_mm: int, place: dict[str, Any]) -> tuple[Image, Matrix]:
    """The image as another scan shows it, and position in the image -> position in that scan."""
    scan = replace(SCANS[slices_mm], modality=image.label, **place)
    truth = movement(scan, image.geometry.affine[:3] @ [*_middle(image.geometry), 1])
    voxels, geometry = acquire(image.volume, scan, truth, np.random.default_rng(0))
    return Image(f"{image.label} moved", voxels, geometry), truth


def _middle(geometry: Geometry) -> NDArray[np.float64]:
    return (np.array(geometry.shape) - 1) / 2


def points_of(image: Image, step: int = 97) -> Matrix:
    """Positions (4, n) in mm of some of the voxels that are not 0."""
    where = np.argwhere(image.voxels > 0)[::step]
    return image.geometry.affine @ np.c_[where, np.ones(len(where))].T


def mean_error_mm(matrix: Matrix, truth: Matrix, points: Matrix) -> float:
    """Over points (4, n) of the fixed image, which `truth` takes to the moving one."""
    apart = (np.linalg.inv(matrix) - truth) @ points
    return float(np.linalg.norm(apart[:3], axis=0).mean())


@cache
def phantom(has_skull: bool) -> PhantomCase:
    """At 1.5 mm."""
    case = make_case(0, (160, 160, 104))
    return with_skull(case) if has_skull else case


def head(modality: str, has_skull: bool) -> Image:
    """One image of the phantom."""
    volume = phantom(has_skull).volume
    return Image(modality, volume.data[volume.modalities.index(modality)], volume.geometry)
