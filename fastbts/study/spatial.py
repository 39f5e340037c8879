"""Images in patient space as registration needs them: cut, blurred and reduced, sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLUR_REACH = 2.5  # standard deviations at which a Gaussian is cut off
LEAST_BLUR = 0.3  # voxels; less changes nothing
SLAB = 1 << 16  # voxels that are blurred at once, few enough for the cache

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpatialImage:
    """An image in patient space.

    Attributes:
        voxels: (D, H, W), any strides; axes in any order and direction.
        affine: Voxel index -> RAS+ position in mm, (4, 4).
    """

    voxels: NDArray[Any]
    affine: Floats

    @cached_property
    def spacing_mm(self) -> Floats:
        """Edge lengths of a voxel, (3,)."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @property
    def own_variance(self) -> Floats:
        """Of positions inside a voxel along each of its axes, (3,), in mm2."""
        return self.spacing_mm**2 / 12

    def variance_along(self, other: SpatialImage) -> Floats:
        """Of positions inside a voxel along the axes of the other image, (3,), in mm2."""
        axes = other.affine[:3, :3] / other.spacing_mm
        return ((axes.T @ self.affine[:3, :3]) ** 2).sum(axis=1) / 12

    def to_mm(self, index: NDArray[Any]) -> Floats:
        """Positions (N, 3) in mm of voxel indices (N, 3)."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def in_memory_order(self) -> SpatialImage:
        """The same image with its last axis the densest in memory; no copy."""
        order = np.argsort([-abs(step) for step in self.voxels.strides], kind="stable")
        return SpatialImage(self.voxels.transpose(order), self.affine[:, [*order, 3]])

    def cut(self, low: Indices, high: Indices) -> SpatialImage:
        """The voxels from `low` to before `high`; no copy."""
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return SpatialImage(self.voxels[box], self._regridded(np.ones(3), low))

    def blurred(self, sigma_mm: Floats, steps: Indices) -> SpatialImage:
        """Blurred by a Gaussian, of each axis its own standard deviation, then every n-th voxel.

        Returns:
            The image, float32; beyond its edges the edge value was used.
        """
        values = self.voxels.astype(np.float32)
        for axis in np.argsort(-steps, kind="stable").tolist():
            sigma = float(sigma_mm[axis] / self.spacing_mm[axis])
            values = _blurred(values, axis, sigma, int(steps[axis]))
        return SpatialImage(values, self._regridded(steps, (steps - 1) // 2))

    def at(self, points: Floats) -> Floats:
        """Trilinear values (N,) at points (N, 3) in mm; the edge value outside."""
        inverse = np.linalg.inv(self.affine)
        place = points @ inverse[:3, :3].T + inverse[:3, 3]
        sides = [_sides(*axis) for axis in zip(place.T, self.voxels.shape, strict=True)]
        total = np.zeros(len(points))
        for (d, p), (h, q), (w, r) in product(*sides):
            total += p * q * r * self.voxels[d, h, w]
        return total

    def _regridded(self, steps: NDArray[Any], start: Indices) -> Floats:
        """The affine of a grid of every n-th voxel, from a first one."""
        affine = self.affine.copy()
        affine[:3, :3] *= steps
        affine[:3, 3] += self.affine[:3, :3] @ start
        return affine


def _sides(place: Floats, n: int) -> tuple[tuple[Indices, Floats], tuple[Indices, Floats]]:
    """The two voxels around places on an axis of n voxels, and their weights."""
    inside = np.clip(place, 0, n - 1)
    low = inside.astype(np.int64)
    part = inside - low
    return (low, 1 - part), (np.minimum(low + 1, n - 1), part)


def _blurred(
    values: NDArray[np.float32], axis: int, sigma: float, step: int
) -> NDArray[np.float32]:
    """Every n-th value along an axis after a blur; sigma in voxels."""
    first = (step - 1) // 2
    if sigma < LEAST_BLUR:
        return np.moveaxis(np.moveaxis(values, axis, 0)[first::step], 0, axis)
    radius = int(np.ceil(BLUR_REACH * sigma))
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    taps /= 2 * taps.sum() - taps[0]
    shape = list(values.shape)
    shape[axis] = len(range(first, shape[axis], step))
    result = np.empty(shape, np.float32)
    across = 1 if axis == 0 else 0
    n = max(1, SLAB * values.shape[across] // values.size)
    for start in range(0, values.shape[across], n):
        slab = (slice(None),) * across + (slice(start, start + n),)
        rows = np.moveaxis(values[slab], axis, 0)
        np.moveaxis(result[slab], axis, 0)[:] = _weighted(rows, taps, first, step)
    return result


def _weighted(
    rows: NDArray[np.float32], taps: Floats, first: int, step: int
) -> NDArray[np.float32]:
    """Weighted sums along the first axis; taps from the middle outwards."""
    radius = len(taps) - 1
    n = len(rows)
    padded = rows[np.arange(-radius, n + radius).clip(0, n - 1)]  # np.pad takes much longer

    def moved(by: int) -> NDArray[np.float32]:
        return padded[radius + by + first : radius + by + n : step]

    total = moved(0) * np.float32(taps[0])
    pair = np.empty_like(total)
    for k in range(1, radius + 1):
        np.add(moved(-k), moved(k), out=pair)
        pair *= np.float32(taps[k])
        total += pair
    return total
