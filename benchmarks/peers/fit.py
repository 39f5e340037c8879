"""How time grows with the number of voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time against log voxels of cubes, by least squares."""
    return float(np.polyfit(3 * np.log(sizes), np.log(seconds), 1)[0])
