"""Recognises images that are already stripped or aligned, where that is certain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastbts.study.series import Series

BRAIN_ML = 300.0, 2000.0  # from a newborn's to the largest; a head has more than 3000
MAX_ON_FACE = 0.16  # of a face of the image: the stem of a brain that is cut there, not a neck


def is_stripped(series: Series) -> bool:
    """Whether an image is 0 all around something that has the size of a brain."""
    filled = np.nan_to_num(series.voxels) != 0
    volume_ml = np.count_nonzero(filled) * series.geometry.voxel_ml
    if not BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1]:
        return False
    faces = (np.moveaxis(filled, axis, 0)[end] for axis in range(3) for end in (0, -1))
    return all(np.count_nonzero(face) <= MAX_ON_FACE * face.size for face in faces)


def share_a_grid(series: Mapping[str, Series]) -> bool:
    """Whether all images are on one grid."""
    first, *others = series.values()
    return all(first.geometry.difference(other.geometry) is None for other in others)
