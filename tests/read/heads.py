"""A synthetic head for tests of quality control."""

from __future__ import annotations

from functools import cache

import numpy as np

from fastbts import Volume
from fastbts.phantom import make_case
from fastbts.read.quality import inspected


@cache
def head(seed: int = 0) -> Volume:
    """FLAIR, T1, T1ce and T2 of the phantom at 2 mm."""
    return make_case(seed, (120, 120, 78)).volume


def warnings_of(data: np.ndarray, modalities: tuple[str, ...] | None = None) -> list[str]:
    """Warnings about images (M, i, j, k) on the grid of `head`."""
    names = head().modalities if modalities is None else modalities
    return list(inspected(Volume(data, head().affine, names)).warnings)
