"""HD95: distance between the surfaces of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import optional_module


def hd95(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> float:
    """95th percentile of the Hausdorff distance, in mm: the larger one of both directions.

    Surface voxels have a face neighbour outside the mask; outside the image counts as outside the
    mask. Equals MONAI's `compute_hausdorff_distance(percentile=95)` up to rounding. A search tree
    over the surface voxels takes a fraction of the time of a distance transform.

    Args:
        predicted: Mask (i, j, k), not empty.
        reference: The same.
        spacing_mm: Edge lengths of a voxel along i, j, k.
    Raises:
        ValueError: A mask is empty; the caller decides what that means.
        DeviceError: SciPy is not installed.
    """
    KDTree = optional_module("scipy.spatial", "evaluate").KDTree
    if not (predicted.any() and reference.any()):
        raise ValueError("hd95: a mask is empty; expected two with voxels")
    a, b = (surface_voxels(mask) * np.array(spacing_mm) for mask in (predicted, reference))
    there, back = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices (n, 3) of the voxels of a mask with a face neighbour outside it."""
    binary_erosion = optional_module("scipy.ndimage", "evaluate").binary_erosion
    ends = np.array(
        [np.flatnonzero(mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    )
    inside = mask[tuple(slice(first, last + 1) for first, last in ends)]
    return np.argwhere(inside & ~binary_erosion(inside)) + ends[:, 0]
