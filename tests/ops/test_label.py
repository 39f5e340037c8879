from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.registry import OPS
from tests.ops.views import N_THREADS, RAGGED, orientations

HALF = (0.5, 0.5, 0.5)
BRATS2021 = (2, 1, 4)


def test_by_hand(device: Ops) -> None:
    """From left to right: nothing, WT, TC, ET, and ET or TC outside of the outer regions."""
    logits = np.array(
        [[-1, 1, 1, 1, -1, -1], [-1, -1, 1, 1, -1, 1], [-1, -1, -1, 1, 1, -1]], np.float32
    ).reshape(3, 1, 1, 6)
    labels = np.zeros((1, 1, 6), np.uint8)
    counts = device.label(logits, (0, 0, 0), ((0, 1), (0, 1), (0, 6)), HALF, BRATS2021, labels)
    assert labels[0, 0].tolist() == [0, 2, 1, 4, 4, 1]
    assert counts == ops.RegionCounts(n_wt=5, n_tc=4, n_et=2, n_nonfinite=0)


def test_a_probability_at_the_threshold_counts_and_nan_does_not(device: Ops) -> None:
    logits = np.full((3, 1, 1, 3), -9, np.float32)
    logits[0, 0, 0] = 0.0, -1e-45, np.nan
    labels = np.zeros((1, 1, 3), np.uint8)
    device.label(logits, (0, 0, 0), ((0, 1), (0, 1), (0, 3)), HALF, BRATS2021, labels)
    assert labels[0, 0].tolist() == [2, 0, 0]


def test_voxels_with_nonfinite_logits_are_counted_inside_the_box(device: Ops) -> None:
    """One voxel with three of them counts once; the largest finite values do not count."""
    logits = np.full((3, 1, 2, 40), 3e38, np.float32)
    logits[0, 0, 0, 5], logits[1, 0, 0, 6], logits[2, 0, 0, 39] = np.nan, np.inf, -np.inf
    logits[:, 0, 0, 7] = np.nan
    logits[:, 0, 1] = np.nan  # outside
    labels = np.zeros((1, 1, 40), np.uint8)
    box = ((0, 1), (0, 1), (0, 40))
    counts = device.label(logits, (0, 0, 0), box, HALF, BRATS2021, labels)
    assert counts == ops.RegionCounts(n_wt=39, n_tc=39, n_et=38, n_nonfinite=4)
    _, expected = reference.label(logits, (0, 0, 0), box, HALF, BRATS2021, np.zeros_like(labels))
    assert counts == expected


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.3, 0.7, 0.999])
def test_thresholds_are_compared_in_float64(device: Ops, threshold: float) -> None:
    """The float32 neighbours of logit(threshold) fall on the side float64 puts them."""
    cut = np.float32(np.log(threshold / (1 - threshold)))
    logits = np.full((3, 1, 1, 3), -99, np.float32)
    logits[0, 0, 0] = np.nextafter(cut, np.float32(-99)), cut, np.nextafter(cut, np.float32(99))
    labels = np.zeros((1, 1, 3), np.uint8)
    box = ((0, 1), (0, 1), (0, 3))
    device.label(logits, (0, 0, 0), box, (threshold,) * 3, BRATS2021, labels)
    expected, _ = reference.label(
        logits, (0, 0, 0), box, (threshold,) * 3, BRATS2021, np.zeros_like(labels)
    )
    assert labels.tolist() == expected.tolist()
    assert labels[0, 0, 0] == 0
    assert labels[0, 0, 2] == 2


def example(size: ops.Size) -> dict[str, Any]:
    return OPS["label"].example(np.random.default_rng(0), size)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [*RAGGED, (0, 4, 4)])
def test_agrees_with_the_reference_inside_the_box_only(
    device: Ops, shape: tuple[int, int, int], n_threads: int
) -> None:
    arguments = example(shape)
    expected, counts = reference.label(**arguments)
    assert device.label(**arguments, n_threads=n_threads) == counts
    assert np.array_equal(arguments["labels"], expected)


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    arguments = example((7, 66, 13))
    expected, _ = reference.label(**arguments)
    for view in orientations(arguments["labels"]):
        device.label(**{**arguments, "labels": view})
        assert np.array_equal(view, expected)


def test_labels_inside_a_larger_array() -> None:
    arguments = example((4, 5, 6))
    buffer = np.full((18, 10, 33), 9, np.uint8)
    view = buffer[::2, :, 1::3]
    ops.label(**{**arguments, "labels": view})
    assert np.array_equal(view, reference.label(**arguments)[0])
    view[:] = 9
    assert (buffer == 9).all()


def test_regions_are_counted_by_rule_not_by_value(device: Ops) -> None:
    logits = np.full((3, 2, 2, 2), 5, np.float32)
    labels = np.zeros((2, 2, 2), np.uint8)
    counts = device.label(logits, (0, 0, 0), ((0, 2), (0, 2), (0, 2)), HALF, (1, 1, 1), labels)
    assert counts == (8, 8, 8, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"box": ((0, 4), (0, 5), (0, 99))},
            r"label: box: expected to be inside labels of shape \(9, 10, 11\), got",
        ),
        ({"box": ((-1, 3), (0, 5), (0, 6))}, r"label: box: expected"),
        ({"box": ((0, 4), (0, 5), (-(2**63), 2**63 - 1))}, r"label: box: expected"),
        (
            {"offset": (4, 0, 0)},
            r"label: offset: expected the box of \(4, 5, 6\) at \(4, 0, 0\) to be inside logits",
        ),
        ({"offset": (-1, 0, 0)}, r"label: offset: expected"),
        ({"offset": (2**63 - 1, 0, 0)}, r"label: offset: expected"),
        (
            {"thresholds": (0.5, 1.0, 0.5)},
            r"label: thresholds: expected probabilities between 0 and 1, got \(0.5, 1, 0.5\)",
        ),
        ({"thresholds": (0.5, 0.5, np.nan)}, r"label: thresholds: expected"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {**example((4, 5, 6)), **change}
    with pytest.raises(OptionsError, match=message):
        ops.label(**arguments)
    assert (arguments["labels"] == 9).all()


def test_other_numbers_of_regions_are_refused() -> None:
    arguments = example((4, 4, 4))
    arguments["logits"] = arguments["logits"][:2]
    with pytest.raises(
        InputError,
        match=r"label: logits: expected 3 regions \(WT, TC, ET\), got shape \(2, 7, 7, 7\)",
    ):
        ops.label(**arguments)
