"""Lesion-wise scores of a few cubes."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts.metrics import region_dice


def test_lesions_by_hand() -> None:
    """Three lesions, one of them found; one part too many."""
    pytest.importorskip("panoptica", reason="lesion-wise scores come with the extra 'evaluate'")
    from fastbts.scores.lesions import lesion_scores

    reference, predicted = np.zeros((2, 30, 30, 30), np.uint8)
    reference[2:8, 2:8, 2:8] = reference[20:24, 20:24, 20:24] = reference[28, 28, 28] = 2
    predicted[2:8, 2:8, 4:8] = predicted[15:17, 3:5, 3:5] = 2
    scores = lesion_scores(predicted, reference)
    assert scores["WT"] == {
        "lesions_reference": 3,
        "lesions_predicted": 2,
        "lesions_found": 1,
        "lesion_recognition": pytest.approx(2 / (3 + 2)),
        "lesion_dice": pytest.approx(2 * 4 / (4 + 6)),
    }
    assert scores["ET"]["lesion_recognition"] is scores["ET"]["lesion_dice"] is None
    assert region_dice(predicted, reference)["ET"] == 1
