"""Images made ready to be registered: cut to what is in them, smoothed, reduced, in 256 steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_MM = 4.0  # voxels in which the foreground is found
FOREGROUND = 0.1  # of the way from the darkest to the brightest voxels, as in FSL's BET
MARGIN_MM = 20.0  # kept around the foreground
SHELL_CELLS = 2  # coarse voxels around the foreground that points are drawn from

Matrix = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in patient space.

    Attributes:
        voxels: (i, j, k), real.
        affine: Voxel index -> RAS+ position in mm, (4, 4).
    """

    voxels: NDArray[Any]
    affine: Matrix

    @cached_property
    def spacing_mm(self) -> Matrix:
        """(3,)"""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    def variance_along(self, axes: Matrix) -> Matrix:
        """How far voxels reach along unit vectors, the columns of `axes` (3, 3): variances, mm2."""
        reach = axes.T @ (self.affine[:3, :3] / np.sqrt(12))
        return (reach**2).sum(axis=1)

    def cut(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Picture:
        """The voxels from `low` to before `high`."""
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return Picture(self.voxels[box], self.affine @ _placed(np.ones(3), low))

    def smoothed(self, sigma_mm: Matrix, steps: NDArray[np.int64]) -> Picture:
        """Blurred by a Gaussian of these standard deviations along i, j, k; every n-th voxel."""
        values = self.voxels.astype(np.float32)
        for axis in np.argsort(-steps):
            values = _blurred(
                values, int(axis), float(sigma_mm[axis] / self.spacing_mm[axis]), int(steps[axis])
            )
        return Picture(values, self.affine @ _placed(steps, (steps - 1) // 2))

    def at(self, points: Matrix) -> Matrix:
        """Trilinear values (N,) at points (N, 3) in mm; edge values outside."""
        inverse = np.linalg.inv(self.affine)
        place = points @ inverse[:3, :3].T + inverse[:3, 3]
        place = np.clip(place, 0, np.array(self.voxels.shape) - 1)
        low = np.minimum(place.astype(np.int64), np.maximum(np.array(self.voxels.shape) - 2, 0))
        part = place - low
        total = np.zeros(len(points))
        for corner in np.ndindex(2, 2, 2):
            index = np.minimum(low + corner, np.array(self.voxels.shape) - 1)
            weight = np.where(corner, part, 1 - part).prod(axis=1)
            total += weight * self.voxels[tuple(index.T)]
        return total


def _placed(steps: Any, start: Any) -> Matrix:
    """From voxels of a reduced or cut grid to those of the whole one, (4, 4)."""
    matrix = np.diag([*np.asarray(steps, np.float64), 1.0])
    matrix[:3, 3] = start
    return matrix


def _blurred(values: Floats, axis: int, sigma: float, step: int) -> Floats:
    """Along one axis, with edge values beyond the ends; sigma in voxels."""
    first, n = (step - 1) // 2, values.shape[axis]
    rows = np.moveaxis(values, axis, 0)
    if sigma < 0.3:
        return np.moveaxis(rows[first::step], 0, axis)
    radius = int(np.ceil(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    taps /= taps.sum()
    padded = np.concatenate([rows[:1]] * radius + [rows] + [rows[-1:]] * radius)
    n_out = len(range(first, n, step))
    total = np.zeros((n_out, *rows.shape[1:]), np.float32)
    for t, tap in enumerate(taps):
        start = first + t
        total += tap * padded[start : start + (n_out - 1) * step + 1 : step]
    return np.moveaxis(total, 0, axis)


@dataclass(frozen=True, eq=False)
class Sight:
    """What registration sees of an image.

    Attributes:
        picture: The image, cut to its foreground with a margin.
        foreground: Coarse, True where there is signal.
        low, high: Intensities that become 0 and 255.
    """

    picture: Picture
    foreground: Picture
    low: float
    high: float

    @staticmethod
    def of(voxels: NDArray[Any], affine: Matrix) -> Sight:
        """Finds the foreground of an image."""
        whole = Picture(voxels, affine)
        steps = np.maximum(1, (COARSE_MM / whole.spacing_mm).round().astype(np.int64))
        coarse = whole.smoothed(steps * whole.spacing_mm / 2.5, steps)
        dark, bright = np.percentile(coarse.voxels, (2, 98))
        is_signal = coarse.voxels > dark + FOREGROUND * (bright - dark)
        signal = coarse.voxels[is_signal]
        high = float(np.percentile(signal, 99.5)) if len(signal) else float(bright)
        margin = np.ceil(MARGIN_MM / whole.spacing_mm).astype(np.int64)
        low, end = _bounds(is_signal, steps)
        size = np.array(voxels.shape)
        cut = whole.cut(np.maximum(0, low - margin), np.minimum(size, end + margin))
        return Sight(cut, Picture(is_signal, coarse.affine), float(dark), high)

    @cached_property
    def centre(self) -> Matrix:
        """Of the foreground, in mm, (3,)."""
        where = np.argwhere(self.foreground.voxels)
        return self.foreground.affine[:3, :3] @ where.mean(axis=0) + self.foreground.affine[:3, 3]

    def level(self, sigma_mm: float, other: Picture) -> Picture:
        """The image in 256 steps, blurred to `sigma_mm` or to the other's voxels, if these are
        larger along an axis; reduced to voxels of this size.
        """
        axes = self.picture.affine[:3, :3] / self.picture.spacing_mm
        own = self.picture.spacing_mm**2 / 12
        target = np.maximum(sigma_mm**2, np.maximum(own, other.variance_along(axes)))
        steps = np.maximum(1, (np.sqrt(target) / self.picture.spacing_mm).astype(np.int64))
        smooth = self.picture.smoothed(np.sqrt(target - own), steps)
        scale = 255 / max(self.high - self.low, 1e-6)
        bytes_ = np.clip((smooth.voxels - self.low) * scale + 0.5, 0, 255).astype(np.uint8)
        return Picture(bytes_, smooth.affine)

    def points(self, n: int, seed: int) -> Matrix:
        """About n positions in mm, (N, 3), spread evenly over the foreground and a shell."""
        near = _grown(self.foreground.voxels, SHELL_CELLS)
        cells = np.argwhere(near)
        per_axis = max(1.0, n / len(cells)) ** (1 / 3)
        rng = np.random.default_rng(seed)
        if n < len(cells):
            cells = cells[np.sort(rng.choice(len(cells), n, replace=False))]
        repeats = max(1, round(per_axis**3))
        places = np.repeat(cells, repeats, axis=0) + rng.uniform(
            -0.5, 0.5, (len(cells) * repeats, 3)
        )
        return places @ self.foreground.affine[:3, :3].T + self.foreground.affine[:3, 3]


def _bounds(mask: NDArray[np.bool_], steps: NDArray[np.int64]) -> tuple[Any, Any]:
    """First and last + 1 of the fine voxels under a coarse mask."""
    where = np.argwhere(mask)
    if len(where) == 0:
        return np.zeros(3, np.int64), np.array(mask.shape) * steps
    return where.min(axis=0) * steps, (where.max(axis=0) + 1) * steps


def _grown(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """The mask and what is up to n voxels away along each axis."""
    for axis in range(3):
        rows = np.moveaxis(mask, axis, 0)
        grown = rows.copy()
        for shift in range(1, n + 1):
            grown[shift:] |= rows[:-shift]
            grown[:-shift] |= rows[shift:]
        mask = np.moveaxis(grown, 0, axis)
    return mask
