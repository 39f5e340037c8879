"""All scores of one case, per region."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fastbts.labels import REGION_LABELS
from fastbts.metrics import region_confusion
from fastbts.scores.hd95 import hd95

MISSED_HD95_MM = 373.13
"""HD95 in BraTS where exactly one mask is empty: the diagonal of a 240 x 240 x 155 mm image."""


def region_scores(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    regions: Mapping[str, tuple[int, ...]] = REGION_LABELS,
) -> dict[str, dict[str, float | None]]:
    """Scores of each region.

    Args:
        predicted: Labels (i, j, k).
        reference: The same.
        spacing_mm: Edge lengths of a voxel along i, j, k.
        regions: Region -> its labels; by default WT, TC and ET with BraTS <= 2021 values.
    Returns:
        Region -> dice; hd95_mm, with the BraTS penalty where exactly one mask is empty;
        hd95_nonempty_mm, None where any is empty; sensitivity, precision, specificity, None where
        undefined; predicted_ml, reference_ml.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    scores: dict[str, dict[str, float | None]] = {}
    for region, counts in region_confusion(predicted, reference, regions).items():
        mask, expected = (np.isin(labels, regions[region]) for labels in (predicted, reference))
        distance = (
            hd95(mask, expected, spacing_mm) if counts.n_predicted and counts.n_reference else None
        )
        empty = 0.0 if counts.n_predicted == counts.n_reference else MISSED_HD95_MM
        scores[region] = {
            "dice": counts.dice,
            "hd95_mm": empty if distance is None else distance,
            "hd95_nonempty_mm": distance,
            "sensitivity": counts.sensitivity,
            "precision": counts.precision,
            "specificity": counts.specificity,
            "predicted_ml": counts.n_predicted * voxel_ml,
            "reference_ml": counts.n_reference * voxel_ml,
        }
    return scores
