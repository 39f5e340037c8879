"""The op of registration: how well two images agree under a map between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.ops.arrays import Array

__all__ = ["mutual_information"]


def mutual_information(
    points: Array,
    values: Array,
    moving: Array,
    maps: Array,
    n_threads: int = 0,
    *,
    out: Array | None = None,
) -> NDArray[np.float64]:
    """Normalised mutual information of two images under each of several maps.

    The fixed image is given by its values at some points. NMI is (H(fixed) + H(moving)) / H(fixed,
    moving), with H the entropies of a joint histogram of 32 x 32 bins: 1 where one image tells
    nothing about the other, 2 where each determines the other. Points outside the moving image are
    left out. Source: Studholme et al., "An overlap invariant entropy measure of 3D medical image
    alignment", 1999.

    Args:
        points: Positions, (N, 3) float32, usually RAS+ in mm; N below 2^24.
        values: The fixed image there, (N,) uint8.
        moving: (D, H, W) uint8, any strides.
        maps: (K, 3, 4) float64: from a position (x, y, z, 1) to a place in the voxels of moving,
            whose centres are at 0, 1, ...
        n_threads: 0 for all CPUs.
        out: (K, 2) float64 to write into.

    Returns:
        (K, 2) float64: NMI, and the share of the points inside the moving image, 0 to 1.

    Raises:
        InputError: An array is of another type or shape.
        OptionsError: A map is not finite.
        DeviceError: The arrays are on a device: there is no CUDA version.
    """
    out = np.empty((*np.shape(maps)[:1], 2)) if out is None else out
    _C.mutual_information(points, values, moving, maps, out, n_threads)
    return out
