"""Distance between the surfaces of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree


def hd95(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> float:
    """95th percentile of the Hausdorff distance, in mm: the larger of the two directions' percentiles.

    The surface is made of the voxels that have a neighbour (of six) outside the mask; the image's border counts as outside.
    That is MONAI's `compute_hausdorff_distance(percentile=95)`, to rounding. A search tree over the surfaces' voxels needs a
    fraction of the time of a distance transform, and gives the same distances.

    Args:
        predicted: Mask (i, j, k), not empty.
        reference: Likewise.
        spacing_mm: Edge lengths of a voxel along i, j, k.
    Raises:
        ValueError: A mask is empty: what that means is the caller's convention.
    """
    if not (predicted.any() and reference.any()):
        raise ValueError("hd95: a mask is empty; expected two with voxels")
    a, b = (surface_voxels(mask) * np.array(spacing_mm) for mask in (predicted, reference))
    there, back = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices (n, 3) of the voxels of a mask that touch its outside by a face."""
    corner = np.array(
        [np.flatnonzero(mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    )
    box = tuple(slice(first, last + 1) for first, last in corner)
    inside = mask[box]
    return np.argwhere(inside & ~binary_erosion(inside)) + corner[:, 0]
