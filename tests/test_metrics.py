"""Dice and other metrics: counted by hand, then properties for any labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastbts import InputError
from fastbts.labels import REGION_LABELS
from fastbts.metrics import Confusion, region_confusion, region_dice

label_maps = arrays(np.uint8, (4, 3, 5), elements=st.sampled_from([0, 1, 2, 4]))


def test_dice_by_hand() -> None:
    predicted, reference = (np.array(a, np.uint8) for a in ([[0, 1], [2, 4]], [[0, 1], [0, 2]]))
    # WT: 3 and 2 voxels, 2 of them common; TC: 2 and 1, 1 common; ET: 1 and 0.
    assert region_dice(predicted, reference) == {"WT": 4 / 5, "TC": 2 / 3, "ET": 0.0}
    assert region_dice(reference * 0, reference * 0) == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_confusion_by_hand() -> None:
    predicted = np.array([4, 1, 2, 2, 0, 0], np.uint8)
    reference = np.array([4, 4, 1, 2, 2, 0], np.uint8)
    tumour, core, enhancing = region_confusion(predicted, reference).values()
    assert tumour == Confusion(n_both=4, n_predicted=4, n_reference=5, n_voxels=6)
    assert metrics(tumour) == (8 / 9, 4 / 5, 1, 1)
    assert metrics(core)[:3] == (4 / 5, 2 / 3, 1)
    assert metrics(enhancing)[:3] == (2 / 3, 1 / 2, 1)
    assert metrics(region_confusion(predicted * 0, reference * 0)["ET"]) == (1, None, None, 1)


def metrics(counts: Confusion) -> tuple[float | None, ...]:
    return counts.dice, counts.sensitivity, counts.precision, counts.specificity


def test_refuses_labels_that_cannot_be_compared() -> None:
    with pytest.raises(
        InputError, match=r"shape \(2,\) and a reference of shape \(1,\): expected one grid"
    ):
        region_confusion(np.zeros(2, np.uint8), np.zeros(1, np.uint8))
    with pytest.raises(InputError, match="labels up to 4 and 9: expected BraTS values"):
        region_confusion(np.array([4], np.uint8), np.array([9], np.uint8))


def test_other_regions_may_have_any_labels() -> None:
    predicted, reference = (np.array(a, np.uint8) for a in ([1, 255, 9, 0], [1, 255, 200, 9]))
    regions = {"all": (1, 9, 200, 255), "one": (255,), "nine": (9,)}
    assert region_dice(predicted, reference, regions) == {"all": 6 / 7, "one": 1.0, "nine": 0.0}
    assert region_dice(predicted * 0, reference, {"none": (3,)}) == {"none": 1.0}


@given(label_maps, label_maps)
def test_counts_equal_those_of_the_masks(a: np.ndarray, b: np.ndarray) -> None:
    for region, counts in region_confusion(a, np.asfortranarray(b)).items():
        one, two = np.isin(a, REGION_LABELS[region]), np.isin(b, REGION_LABELS[region])
        assert (counts.n_both, counts.n_predicted, counts.n_reference) == (
            (one & two).sum(),
            one.sum(),
            two.sum(),
        )
