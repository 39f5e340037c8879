"""Sliding windows: their positions and weights."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import Size
from fastbts.pipeline.normalize import padded_side


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """A regular grid of windows over a tensor.

    Attributes:
        size: (d, h, w) of every window.
        origins: First voxel of each window, (B, 3) int32; negative where the tensor is smaller than
            a window.
        weights: Weight of each window along D, H, W: arrays (B, d), (B, h), (B, w) float32. A
            voxel's weight is their product; the weights of all windows over a voxel sum to one.
    """

    size: Size
    origins: NDArray[np.int32]
    weights: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def cover(cls, shape: Size, size: Size, overlap: float) -> WindowPlan:
        """Covers `shape` with windows of `size` that overlap by at least the fraction `overlap`."""
        starts = [axis_starts(n, w, overlap) for n, w in zip(shape, size, strict=True)]
        weights = [axis_weights(s, n, w) for s, n, w in zip(starts, shape, size, strict=True)]
        index = np.stack(
            np.meshgrid(*(np.arange(len(s)) for s in starts), indexing="ij"), axis=-1
        ).reshape(-1, 3)
        origins = np.stack([starts[a][index[:, a]] for a in range(3)], axis=1)
        d, h, w = (np.ascontiguousarray(weights[a][index[:, a]]) for a in range(3))
        return cls(size, np.ascontiguousarray(origins, np.int32), (d, h, w))

    def __len__(self) -> int:
        return len(self.origins)


def fitted_size(shape: Size, most: Size, overlap: float, stride: int) -> Size:
    """The size of the windows that cover `shape` with the fewest voxels in all; see `cover`.

    A window has at most as many voxels as `most`, which bounds the memory. Its sides are those of
    `shape`, or half of those of `most` or longer, and no less than a network takes; they are
    multiples of `stride` if those of `shape` are.
    """
    n_most = math.prod(most)
    if math.prod(shape) <= n_most:
        return shape
    sides = [fitted_sides(n, m, overlap, stride) for n, m in zip(shape, most, strict=True)]

    def n_covered(size: Size) -> tuple[int, int]:
        n_windows = math.prod(axis_count(n, w, overlap) for n, w in zip(shape, size, strict=True))
        return n_windows * math.prod(size), n_windows

    sizes = [(d, h, w) for d, h, w in itertools.product(*sides) if d * h * w <= n_most]
    return min(sizes, key=n_covered, default=most)


def fitted_sides(n: int, most: int, overlap: float, stride: int) -> list[int]:
    """The smallest side of each number of windows along an axis; see `fitted_size`."""
    least = min(n, padded_side(-(-most // 2), stride))
    of_count = {axis_count(n, side, overlap): side for side in range(n, least - 1, -stride)}
    return list(of_count.values())


def axis_count(n: int, window: int, overlap: float) -> int:
    """Number of windows along one axis."""
    return 1 + max(0, math.ceil((n - window) / max(1.0, window * (1 - overlap))))


def axis_starts(n: int, window: int, overlap: float) -> NDArray[np.int64]:
    """First voxels of the windows along one axis, evenly spread; a single window is centred."""
    if n <= window:
        return np.array([(n - window) // 2])
    count = axis_count(n, window, overlap)
    return np.round(np.linspace(0, n - window, count)).astype(np.int64)


def axis_weights(starts: NDArray[np.int64], n: int, window: int) -> NDArray[np.float32]:
    """Gaussian weight of each window at its own voxels, (B, window); they sum to one at each voxel.

    So does a product of three such axes, because the windows form a grid: blending needs no
    division.
    """
    # sigma = w / 8 as in nnU-Net v2, sliding_window_prediction.py (Isensee et al. 2021).
    # Float64, so that e^-8 at the rim stays exact.
    position = np.arange(window) - (window - 1) / 2
    gaussian = np.exp(-0.5 * (position / (window / 8)) ** 2)
    inside = [slice(max(0, -s), min(window, n - s)) for s in starts]
    total = np.zeros(n)
    for start, part in zip(starts, inside, strict=True):
        total[start + part.start : start + part.stop] += gaussian[part]
    weights = np.zeros((len(starts), window), np.float32)
    for row, start, part in zip(weights, starts, inside, strict=True):
        row[part] = gaussian[part] / total[start + part.start : start + part.stop]
    return weights
