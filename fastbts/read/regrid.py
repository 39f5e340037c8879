"""Images that are registered with each other, but stored on grids of their own, onto one grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.volume import Geometry


def onto_grid(data: NDArray[Any], geometry: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Resamples an image trilinearly onto another grid in the same patient space, oblique or anisotropic as both may be.

    Args:
        data: (i, j, k) on `geometry`, finite.
        geometry: Where the image lies.
        target: The grid to have it on.

    Returns:
        (i, j, k) on `target`, float32, first axis fastest; 0, which is background, where the image has no voxels.
    """
    to_voxel = (
        np.linalg.inv(geometry.affine) @ target.affine
    )  # voxel (i, j, k) of the target -> voxel of the image
    reverse = to_voxel[[2, 1, 0]][:, [2, 1, 0, 3]]  # the same for (k, j, i), the order of memory
    k, j, i = target.shape[::-1]
    return ops.resample_affine(data.T[None], reverse, (k, j, i))[0].T
