"""Resampling between the input's spacing and the network's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resample(array: NDArray[np.float32], size: tuple[int, int, int]) -> NDArray[np.float32]:
    """Resamples (C, D, H, W) to (C, *size) by linear interpolation, one axis after the other.

    The outer faces of the grid stay where they are (voxel centres at (i + 1/2) n / n'), and beyond the outermost centres the
    edge value holds.
    """
    for axis, n_out in enumerate(size, start=1):
        if array.shape[axis] != n_out:
            array = _resample_axis(array, axis, n_out)
    return array


def _resample_axis(array: NDArray[np.float32], axis: int, n_out: int) -> NDArray[np.float32]:
    n_in = array.shape[axis]
    position = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    low = np.minimum(position.astype(int), n_in - 2) if n_in > 1 else np.zeros(n_out, int)
    part = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    below, above = array.take(low, axis), array.take(np.minimum(low + 1, n_in - 1), axis)
    return below + (above - below) * part
