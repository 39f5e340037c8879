"""Lesion-wise scores by panoptica (Kofler et al. 2023, arXiv 2312.02608), extra `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import DeviceError
from fastbts.labels import REGION_LABELS

MATCHING_IOU = 0.5
"""Least IoU of a lesion with the predicted part that finds it; panoptica's default."""


def lesion_scores(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    regions: Mapping[str, tuple[int, ...]] = REGION_LABELS,
) -> dict[str, dict[str, float | None]]:
    """Scores of the connected parts (26 neighbours) of each region.

    Each predicted part is matched with at most one of the reference.

    Args:
        predicted: Labels (i, j, k).
        reference: The same.
        regions: Region -> its labels; by default WT, TC and ET with BraTS <= 2021 values.
    Returns:
        Region -> lesions_reference, lesions_predicted, lesions_found (numbers), lesion_recognition
        (F1 of finding them; None without lesions), lesion_dice (mean Dice of the lesions found;
        None where none was).
    Raises:
        DeviceError: panoptica is not installed.
    """
    try:
        from panoptica import (
            ConnectedComponentsInstanceApproximator,
            InputType,
            NaiveThresholdMatching,
            Panoptica_Evaluator,
        )
        from panoptica.metrics import Metric
    except ImportError as error:
        raise DeviceError(
            "lesion-wise scores need panoptica; "
            "install it with: pip install 'fastbts[evaluate]', or omit --lesions"
        ) from error
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=NaiveThresholdMatching(Metric.IOU, MATCHING_IOU),
        instance_metrics=[Metric.DSC],
        global_metrics=[],
    )
    scores = {}
    for region, values in regions.items():
        masks = (np.isin(labels, values).astype(np.uint8) for labels in (predicted, reference))
        result = evaluator.evaluate(*masks, verbose=False)["ungrouped"]
        scores[region] = {
            "lesions_reference": result.n_ref_instances,
            "lesions_predicted": result.n_pred_instances,
            "lesions_found": result.tp,
            "lesion_recognition": _number(result.rq),
            "lesion_dice": _number(result.sq_dsc) if result.tp else None,
        }
    return scores


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
