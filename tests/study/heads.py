"""Heads for tests of registration: phantoms with and without a skull, moved by known transforms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import Geometry, ops
from fastbts.phantom import make_case

AXES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1)}
CONTRASTS = {
    "flair": (40, 20, 260),
    "t1": (150, 40, 700),
    "t1ce": (180, 40, 850),
    "t2": (1000, 50, 500),
}
"""Intensities of the fluid around the brain, the skull and the scalp."""


@dataclass(frozen=True, eq=False)
class Image:
    """An image as `register` takes it."""

    label: str
    voxels: NDArray[Any]
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class Movement:
    """A rigid transform about a point: turned about X, Y, Z in this order, then shifted."""

    degrees: tuple[float, float, float]
    mm: tuple[float, float, float]

    def about(self, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrix (4, 4)."""
        rotation = np.eye(3)
        for axis, angle in enumerate(np.deg2rad(self.degrees)):
            i, j = (axis + 1) % 3, (axis + 2) % 3
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[j, i], turn[i, j] = np.sin(angle), -np.sin(angle)
            rotation = turn @ rotation
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = centre + self.mm - rotation @ centre
        return matrix


@dataclass(frozen=True, eq=False)
class Grid:
    """Where an image is sampled: spacing and directions of i, j, k, and edge lengths."""

    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"
    field_mm: tuple[float, float, float] = (210.0, 250.0, 210.0)  # X, Y, Z

    def around(self, centre: NDArray[np.float64]) -> Geometry:
        directions = np.array([AXES[axis] for axis in self.axes], float).T
        field = np.abs(directions.T) @ self.field_mm
        shape = np.ceil(field / self.spacing_mm).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = directions * self.spacing_mm
        affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
        return Geometry(tuple(shape.tolist()), affine)


SCANS = {  # by thickness of the slices in mm
    1: ("t1", Grid((1, 1, 1))),
    3: ("flair", Grid((0.75, 0.75, 3), "PSR")),
    5: ("t2", Grid((0.9, 0.9, 5), "LPS")),
}
NEAR = Movement((6, -4, 9), (8, -6, 15))
FAR = Movement((12, -10, 15), (30, -30, 33))
TURNED = Movement((25, 10, -20), (-20, 25, -40))


def mean_error_mm(
    matrix: NDArray[np.float64], truth: NDArray[np.float64], points: NDArray[np.float64]
) -> float:
    """Over points (4, n) of the fixed image, which `truth` takes to the moving one."""
    apart = (np.linalg.inv(matrix) - truth) @ points
    return float(np.linalg.norm(apart[:3], axis=0).mean())


def centre_of(image: Image) -> NDArray[np.float64]:
    return brain_points(image).mean(axis=1)[:3]


def brain_points(image: Image, step: int = 97) -> NDArray[np.float64]:
    """Positions (4, n) in mm of some non-zero voxels."""
    where = np.argwhere(image.voxels > 0)[::step]
    return image.geometry.affine @ np.c_[where, np.ones(len(where))].T


def moved(
    image: Image, truth: NDArray[np.float64], centre: NDArray[np.float64], grid: Grid, seed: int = 0
) -> Image:
    """The image moved by `truth`, on a grid around where `centre` goes; thick slices are means.

    With 5 % noise where there is signal.
    """
    geometry = grid.around((truth @ [*centre, 1])[:3])
    to_voxel = np.linalg.inv(truth @ image.geometry.affine) @ geometry.affine
    n = max(1, round(grid.spacing_mm[2]))
    tensor, total = image.voxels[None].astype(np.float32), np.zeros(geometry.shape, np.float32)
    for k in range(n):
        shift = np.eye(4)
        shift[2, 3] = (k + 0.5) / n - 0.5
        total += ops.resample_affine(tensor, to_voxel @ shift, geometry.shape)[0] / n
    noise = np.random.default_rng(seed).normal(0, 0.05 * total[total > 0].std(), total.shape)
    values = np.where(total > 0, total + noise, 0).round().clip(0)
    return Image(f"{image.label} moved", values.astype(np.uint16), geometry)


@cache
def head(modality: str, with_skull: bool) -> Image:
    """The phantom at 1.5 mm, skull-stripped or in a made-up head."""
    volume = make_case(0, (160, 160, 104)).volume
    voxels = volume.data[volume.modalities.index(modality)].astype(np.float32)
    if with_skull:
        voxels = _in_a_head(voxels, (volume.data != 0).any(axis=0), CONTRASTS[modality])
    return Image(modality, voxels, volume.geometry)


def _in_a_head(
    voxels: NDArray[np.float32], brain: NDArray[np.bool_], values: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Layers of 1.5 mm around the brain: fluid, skull, scalp; a neck; noise in the air."""
    fluid, bone, scalp = values
    result, filled = voxels.copy(), brain
    for value in (fluid, fluid, *[bone] * 4, *[scalp] * 3):
        grown = _grown(filled)
        result[grown & ~filled] = value
        filled = grown
    i, j, k = np.indices(voxels.shape)
    low = np.argwhere(brain)[:, 2].min()
    neck = ((i - 80) / 32) ** 2 + ((j - 90) / 36) ** 2 < 1
    result[neck & (k < low + 12) & ~filled] = 0.8 * scalp
    noise = np.random.default_rng(1).normal(0, 0.02 * scalp, voxels.shape)
    return np.abs(result + noise).astype(np.float32)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = mask.copy()
    for axis in range(3):
        grown |= np.roll(mask, 1, axis) | np.roll(mask, -1, axis)
    return grown
