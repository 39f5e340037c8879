"""Overlap of a segmentation with its reference, on the input's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbts.labels import REGION_LABELS


def dice(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks; 1 if both are empty (BraTS convention)."""
    total = int(predicted.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((predicted & reference).sum()) / total


def region_dice(predicted: NDArray[np.uint8], reference: NDArray[np.uint8]) -> dict[str, float]:
    """Dice of WT, TC and ET from two label maps with BraTS <= 2021 values."""
    return {region: dice(np.isin(predicted, v), np.isin(reference, v)) for region, v in REGION_LABELS.items()}
