"""Registered images that are stored on different grids, resampled to one grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.volume import Geometry


def resample_to_grid(
    data: NDArray[Any], geometry: Geometry, target: Geometry
) -> NDArray[np.float32]:
    """Resamples an image trilinearly to another grid in the same patient space.

    Args:
        data: (i, j, k) on `geometry`. NaN spreads to the voxels that touch it.
        geometry: The image's grid.
        target: The grid to resample to; any orientation, oblique or anisotropic.

    Returns:
        (i, j, k) on `target`, float32, first axis fastest; 0, the background, outside the image.
    """
    # Voxel (i, j, k) of the target -> voxel of the image; and the same for (k, j, i), as in memory.
    to_voxel = np.linalg.inv(geometry.affine) @ target.affine
    reverse = to_voxel[[2, 1, 0]][:, [2, 1, 0, 3]]
    k, j, i = target.shape[::-1]
    return ops.resample_affine(data.T[None], reverse, (k, j, i))[0].T
