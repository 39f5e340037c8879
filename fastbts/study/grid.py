"""The working grid of a study, and images resampled to other grids, each only once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.errors import GeometryError
from fastbts.ops import Size
from fastbts.pipeline.normalize import MAX_VOXELS, SPACING_TOLERANCE
from fastbts.study.spatial import LEAST_BLUR, Floats, SpatialImage
from fastbts.volume import Geometry

WORKING_MM = 1.0  # spacing of the training data


def working_grid(reference: Geometry) -> Geometry:
    """The grid on which a study is stripped and segmented.

    It has the axes and the outer faces of the reference, and 1 mm along each axis whose spacing
    differs by more than 10 % from that. For a reference of about 1 mm it is the same grid.

    Raises:
        GeometryError: It would have absurdly many voxels.
    """
    spacing = np.array(reference.spacing_mm)
    shape = np.array(reference.shape)
    same = np.abs(spacing / WORKING_MM - 1) <= SPACING_TOLERANCE
    size = np.where(same, shape, np.maximum(2, np.rint(shape * spacing / WORKING_MM)))
    if size.prod() > MAX_VOXELS:
        raise GeometryError(
            f"the reference series would have {' x '.join(f'{n:.0f}' for n in size)} voxels at "
            f"{WORKING_MM:g} mm; expected at most {MAX_VOXELS}; choose another reference"
        )
    steps = shape / size  # in voxels of the reference
    affine = reference.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((steps - 1) / 2)
    affine[:3, :3] *= steps
    i, j, k = (int(n) for n in size)
    return Geometry((i, j, k), affine)


def on_grid(
    voxels: NDArray[Any],
    geometry: Geometry,
    matrix: Floats,
    target: Geometry,
    n_threads: int = 0,
) -> NDArray[np.float32]:
    """An image on another grid; where its voxels are finer than the grid's, it is blurred to them.

    Args:
        voxels: (i, j, k) on `geometry`. NaN and infinities become 0.
        geometry: The image's grid.
        matrix: Position in the image's patient space -> in that of the target, RAS+ in mm.
        target: The grid to resample to.
        n_threads: 0 for all CPUs.
    Returns:
        (i, j, k) on `target`, float32, first axis fastest; 0 outside the image.
    """
    moved = matrix @ geometry.affine
    finite = _finite(voxels)
    if geometry.shape == target.shape and np.allclose(moved, target.affine, rtol=0, atol=1e-6):
        return np.asarray(finite, np.float32, order="F")
    image = SpatialImage(finite.T, _reversed(moved))
    k, j, i = target.shape[::-1]
    return resampled(image, _reversed(target.affine), (k, j, i), n_threads).T


def resampled(
    image: SpatialImage, affine: Floats, size: Size, n_threads: int = 0
) -> NDArray[np.float32]:
    """An image sampled trilinearly at the voxels of a grid, after a blur to their size.

    Args:
        image: (D, H, W).
        affine: Of the grid: voxel index -> position, in the order of `size`.
        size: (D', H', W') of the grid.
        n_threads: 0 for all CPUs.
    """
    small = _reduced(image.in_memory_order(), affine)
    to_voxel = np.linalg.inv(small.affine) @ affine
    return ops.resample_affine(small.voxels[None], to_voxel, size, n_threads)[0]


def _reduced(image: SpatialImage, affine: Floats) -> SpatialImage:
    """Blurred along its axes to the grid's voxels, and thinned to half of these where finer."""
    wanted = SpatialImage(image.voxels, affine).variance_along(image)
    sigma = np.sqrt(np.maximum(0, wanted - image.own_variance))
    if (sigma < LEAST_BLUR * image.spacing_mm).all():
        return image
    steps = np.maximum(1, (np.sqrt(3 * wanted) / image.spacing_mm + 0.01).astype(np.int64))
    return image.blurred(sigma, steps)


def _reversed(affine: Floats) -> Floats:
    """The same affine for voxels (k, j, i)."""
    return affine[:, [2, 1, 0, 3]]


def _finite(voxels: NDArray[Any]) -> NDArray[Any]:
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return voxels
    return np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0)
