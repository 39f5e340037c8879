"""Overlap that a person can count, then what must hold for any labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastbts import InputError
from fastbts.labels import REGION_LABELS
from fastbts.metrics import region_dice, region_overlaps

label_maps = arrays(np.uint8, (4, 3, 5), elements=st.sampled_from([0, 1, 2, 4]))


def test_dice_by_hand() -> None:
    found, truth = (np.array(a, np.uint8) for a in ([[0, 1], [2, 4]], [[0, 1], [0, 2]]))
    # WT: 3 and 2 voxels, 2 of them common; TC: 2 and 1, 1 common; ET: 1 and 0.
    assert region_dice(found, truth) == {"WT": 4 / 5, "TC": 2 / 3, "ET": 0.0}
    assert region_dice(truth * 0, truth * 0) == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_overlap_by_hand() -> None:
    predicted, reference = (
        np.array([4, 1, 2, 2, 0, 0], np.uint8),
        np.array([4, 4, 1, 2, 2, 0], np.uint8),
    )
    tumour, core, enhancing = region_overlaps(predicted, reference).values()
    assert (tumour.n_both, tumour.n_predicted, tumour.n_reference, tumour.n_voxels) == (4, 4, 5, 6)
    assert (tumour.dice, tumour.sensitivity, tumour.precision, tumour.specificity) == (
        8 / 9,
        4 / 5,
        1,
        1,
    )
    assert (core.dice, core.sensitivity, core.precision) == (4 / 5, 2 / 3, 1)
    assert (enhancing.dice, enhancing.sensitivity, enhancing.precision) == (2 / 3, 1 / 2, 1)
    nothing = region_overlaps(predicted * 0, reference * 0)["ET"]
    assert (nothing.dice, nothing.sensitivity, nothing.precision, nothing.specificity) == (
        1,
        None,
        None,
        1,
    )


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"shape \(2,\) and a reference of shape \(1,\): expected one grid"
    ):
        region_overlaps(np.zeros(2, np.uint8), np.zeros(1, np.uint8))
    with pytest.raises(InputError, match="labels up to 4 and 9: expected BraTS values"):
        region_overlaps(np.array([4], np.uint8), np.array([9], np.uint8))


@given(label_maps, label_maps)
def test_counting_pairs_is_comparing_masks(a: np.ndarray, b: np.ndarray) -> None:
    for region, overlap in region_overlaps(a, np.asfortranarray(b)).items():
        one, two = np.isin(a, REGION_LABELS[region]), np.isin(b, REGION_LABELS[region])
        assert (overlap.n_both, overlap.n_predicted, overlap.n_reference) == (
            (one & two).sum(),
            one.sum(),
            two.sum(),
        )
