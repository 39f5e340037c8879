"""Temperature, calibration error and reliability, on counts that a person can check."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbts import Segmenter
from tests.test_segmenter import Case, expected_labels
from training.scores.calibration import (
    MIDDLES,
    brain_logits,
    calibration_errors,
    calibration_record,
    expected_calibration_error,
    fit_temperature,
    logit_histogram,
    mean_nll,
    reliability,
)

ONES = (1.0, 1.0, 1.0)


def histogram_of(logits: list[float], inside: list[bool]) -> np.ndarray:
    return logit_histogram(np.array([logits], np.float32), np.array([inside]))


def drawn(*temperatures: float, n: int = 200_000) -> np.ndarray:
    """Logits that are over-confident by a factor per region: (K, 2, number of MIDDLES)."""
    rng, k = np.random.default_rng(0), len(temperatures)
    logits = rng.normal(0, 3, (k, n)).astype(np.float32)
    return logit_histogram(
        logits, rng.random((k, n)) < 1 / (1 + np.exp(-logits / np.array(temperatures)[:, None]))
    )


def test_histogram_by_hand() -> None:
    histogram = logit_histogram(
        np.array([[0.004, 0.006, -99], [99, 1.0, 1.0]], np.float32),
        np.array([[0, 1, 0], [1, 1, 0]], bool),
    )
    assert histogram.shape == (2, 2, len(MIDDLES))
    zero = int(np.searchsorted(MIDDLES, 0.005))
    assert (histogram[0, :, zero].tolist(), histogram[0, 0, 0], histogram[1, 1, -1]) == (
        [1, 1],
        1,
        1,
    )
    np.testing.assert_array_equal(histogram.sum(2), [[2, 1], [1, 2]])


def test_error_by_hand() -> None:
    """Four voxels at p = 0.75, two of them inside; one at 0.1, outside: (4 x 0.25 + 0.1) / 5."""
    four, one = float(np.log(3)), float(np.log(1 / 9))
    (histogram,) = histogram_of([four] * 4 + [one], [True, True, False, False, False])
    assert expected_calibration_error(histogram) == pytest.approx((4 * 0.25 + 0.1) / 5, abs=2e-3)
    confidence, share, n = reliability(histogram)
    assert (n[11], n[1], n.sum()) == (4, 1, 5), "bins of 1/15"
    assert confidence[11] == pytest.approx(0.75, abs=2e-3)
    assert share[11] == 0.5
    assert np.isnan(share[5])


def test_regions_do_not_compensate_each_other() -> None:
    """At p = 0.75 four of WT's four voxels are inside, two of TC's, three of ET's."""
    logits = np.full((3, 4), np.log(3), np.float32)
    inside = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], bool)
    histogram = logit_histogram(logits, inside)
    assert expected_calibration_error(histogram.sum(0)) == pytest.approx(0, abs=2e-3), (
        "added up, they seem calibrated"
    )
    assert calibration_errors(histogram, ONES) == pytest.approx(
        {"WT": 0.25, "TC": 0.25, "ET": 0, "mean": 0.5 / 3}, abs=2e-3
    )
    with pytest.raises(
        ValueError, match=r"shape \(3, 2, 4800\): expected that of one region, \(2, 4800\)"
    ):
        reliability(histogram)


def test_record_shows_which_region_is_over_confident() -> None:
    histogram, own = drawn(1.4, 2.0, 3.0), {"WT": 2.0, "TC": 2.0, "ET": 2.0}
    record = json.loads(
        json.dumps(calibration_record(histogram, (*own.values(),)), allow_nan=False)
    )
    best = record["best_temperatures"]
    assert best == pytest.approx({"WT": 1.4, "TC": 2.0, "ET": 3.0}, rel=0.03)
    assert record["ece"] == calibration_errors(histogram, (2.0, 2.0, 2.0))
    assert record["ece_uncalibrated"] == calibration_errors(histogram, ONES)
    assert record["ece"]["TC"] < 0.005 < 0.02 < min(record["ece"]["WT"], record["ece"]["ET"])
    assert max(calibration_errors(histogram, (*best.values(),)).values()) < 0.005
    assert (record["temperatures"], record["bins"], record["n_voxels"]) == (own, 15, 200_000)
    whole, enhancing = (record["reliability"][region] for region in ("WT", "ET"))
    assert whole["share"][-2] > whole["probability"][-2] + 0.02, (
        "under-confident: more are inside than it says"
    )
    assert enhancing["share"][-2] < enhancing["probability"][-2] - 0.02
    assert sum(whole["n"]) == 200_000
    narrow = calibration_record(
        logit_histogram(np.full((3, 2), 9, np.float32), np.ones((3, 2), bool)), ONES
    )
    assert narrow["reliability"]["WT"]["share"] == [None] * 14 + [1], "JSON has no NaN"
    assert narrow["reliability"]["WT"]["n"] == [0] * 14 + [2]


def test_likelihood_by_hand() -> None:
    histogram = histogram_of([float(np.log(4))] * 2, [True, False])
    assert mean_nll(histogram, 1.0) == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2, abs=2e-3)
    assert mean_nll(histogram, 1e6) == pytest.approx(np.log(2), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_temperature_is_found(temperature: float) -> None:
    histogram = drawn(*[temperature] * 3)
    assert fit_temperature(histogram) == pytest.approx(temperature, rel=0.03)
    assert max(calibration_errors(histogram, (temperature,) * 3).values()) < 0.005
    if temperature != 1:
        assert min(calibration_errors(histogram, ONES).values()) > 0.03
        assert mean_nll(histogram, temperature) < mean_nll(histogram, 1.0)


@given(st.lists(st.tuples(st.floats(-30, 30, width=32), st.booleans()), min_size=1, max_size=40))
def test_histograms_add_up(voxels: list[tuple[float, bool]]) -> None:
    logits, inside = map(list, zip(*voxels, strict=True))
    whole = histogram_of(logits, inside)
    assert whole.sum() == len(voxels)
    parts = histogram_of(logits[::2], inside[::2]) + (
        histogram_of(logits[1::2], inside[1::2]) if len(voxels) > 1 else 0
    )
    np.testing.assert_array_equal(whole, parts)
    assert 0 <= expected_calibration_error(whole[0]) <= 1


def test_brain_logits_match_the_reference(voxel_segmenter: Segmenter, small_case: Case) -> None:
    """By VoxelEngine, whose logit is positive exactly where the voxel is in the region."""
    images, affine = small_case
    turned, orientation = (
        images[:, ::-1].swapaxes(1, 3),
        affine[:, [2, 1, 0, 3]] * np.array([1, 1, -1, 1]),
    )
    logits, targets = brain_logits(
        voxel_segmenter.predict(turned, affine=orientation), expected_labels(turned)
    )
    assert logits.shape == targets.shape == (3, (images != 0).any(0).sum())
    np.testing.assert_array_equal(logits[2] >= 0, targets[2])
    np.testing.assert_array_equal((logits >= 0).any(0), targets[0])
