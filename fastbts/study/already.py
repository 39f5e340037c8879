"""Recognises images that are already stripped or aligned, where that is certain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.study.series import Series

BRAIN_ML = 300.0, 2000.0  # from a newborn's to the largest; a head has more than 3000
MAX_ON_FACE = 0.16  # of a face of the image: the stem of a brain that is cut there, not a neck


def is_stripped(series: Series) -> bool:
    """Whether an image is 0 all around something that has the size of a brain."""
    voxels = series.voxels
    for axis in range(3):
        for end in (0, -1):
            face = np.moveaxis(voxels, axis, 0)[end]
            if _n_filled(face) > MAX_ON_FACE * face.size:
                return False
    volume_ml = _n_filled(voxels) * series.geometry.voxel_ml
    return BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1]


def _n_filled(voxels: NDArray[Any]) -> int:
    """Voxels that are not 0; NaN and infinities count as 0."""
    filled = voxels != 0
    if voxels.dtype.kind == "f":
        filled &= np.isfinite(voxels)
    return int(np.count_nonzero(filled))


def share_a_grid(series: Mapping[str, Series]) -> bool:
    """Whether all images are on one grid."""
    first, *others = series.values()
    return all(first.geometry.difference(other.geometry) is None for other in others)
