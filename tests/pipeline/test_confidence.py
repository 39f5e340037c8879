"""Confidence: the expected Dice of each region, and when a result is called doubtful."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastbts import EngineSpec, Segmenter, read_case
from fastbts.phantom import make_case
from fastbts.pipeline.confidence import DOUBTFUL, confidence, doubts, probability_sums
from fastbts.placement import Placement
from tests.conftest import ROOT

PLACEMENT = Placement(((0, 8), (0, 8), (0, 8)), (8, 8, 8), (8, 8, 8))
VOLUMES = {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def confidence_of(
    logits: np.ndarray, placement: Placement, spec: EngineSpec, volumes_ml: dict[str, float]
) -> dict[str, float]:
    return confidence(probability_sums(logits, placement, spec), spec, volumes_ml)


def logits_of(probability: float, background: float = 0.0) -> np.ndarray:
    """Half of the box with one probability, half with another."""
    with np.errstate(divide="ignore"):
        values = np.log([probability, background]) - np.log1p([-probability, -background])
    whole = np.full((3, 8, 8, 8), values[1], np.float32)
    whole[:, :4] = values[0]
    return whole


@pytest.mark.parametrize(
    ("probability", "background", "expected"),
    [(0.999999, 0.0, 1.0), (0.6, 0.0, 2 * 0.6 / 1.6), (0.6, 0.3, 2 * 0.6 / (0.6 + 0.3 + 1))],
)
def test_expected_dice(probability: float, background: float, expected: float) -> None:
    logits = logits_of(probability, background)
    assert confidence_of(logits, PLACEMENT, EngineSpec(), VOLUMES) == pytest.approx(
        dict.fromkeys(VOLUMES, expected), abs=1e-4
    )


def test_temperatures_and_thresholds_count() -> None:
    """At 1.5, probabilities of 0.65 and 0.45 become 0.695 and 0.434; at 2.2, 0.65 becomes 0.637."""
    spec = EngineSpec(temperatures=(2.0, 1.5, 2.2), thresholds=(0.4, 0.6, 0.7))
    logits = 2 * logits_of(0.65, 0.45)  # WT is found everywhere, ET nowhere
    found = confidence_of(logits, PLACEMENT, spec, VOLUMES)
    expected = {"WT": 1.1 / 1.55, "TC": 2 * 0.695 / (0.695 + 0.434 + 1), "ET": 1 - 0.637}
    assert found == pytest.approx(expected, abs=1e-3)


def test_an_empty_region_is_as_sure_as_its_highest_probability() -> None:
    empty = {**VOLUMES, "ET": 0.0}
    assert confidence_of(logits_of(0.2), PLACEMENT, EngineSpec(), empty)["ET"] == pytest.approx(0.8)


def test_only_the_brain_box_counts() -> None:
    placement = Placement(((0, 4), (0, 8), (0, 8)), (4, 8, 8), (8, 8, 8))
    logits = logits_of(0.9, 0.9)
    logits[:, :2] = logits[:, 6:] = 3e38
    found = confidence_of(logits, placement, EngineSpec(), VOLUMES)
    assert found == pytest.approx(dict.fromkeys(VOLUMES, 2 * 0.9 / 1.9), abs=1e-4)


def test_a_region_below_its_limit_is_named() -> None:
    (warning,) = doubts({"WT": 0.9, "TC": 0.11, "ET": 0.2, "other": 0.0})
    assert warning.startswith(
        f"the result is doubtful: expected Dice of TC 0.11 (usually at least {DOUBTFUL['TC']}), "
        f"ET 0.20 (usually at least {DOUBTFUL['ET']}); look at it"
    )
    assert doubts(DOUBTFUL) == []


def test_the_limits_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/confidence.json").read_text())
    assert measured["limits"] == DOUBTFUL


def test_the_report_and_the_result_say_it(voxel_segmenter: Segmenter) -> None:
    case = make_case(0, (48, 48, 48)).volume
    result = voxel_segmenter.predict(case)
    assert result.report["confidence"] == result.confidence
    assert set(result.confidence) == {"WT", "TC", "ET"}
    expected = doubts(result.confidence)
    assert [w for w in result.warnings if "doubtful" in w] == expected
    assert result.report["warnings"] == list(result.warnings)


@pytest.mark.data
def test_good_results_are_not_doubtful(shipped_segmenter: Segmenter, val_cases: list[Path]) -> None:
    case = next(c for c in val_cases if c.name.endswith("AMH_1"))
    assert doubts(shipped_segmenter.predict(read_case(case)).confidence) == []
