from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fastbts import InputError, OptionsError, ops
from tests.ops.devices import Ops
from tests.ops.registry import OPS
from tests.ops.views import N_THREADS

UNIT = 2**30
EXAMPLE = OPS["expected_dice"].arguments(0, (5, 6, 7))


def test_by_hand(device: Ops) -> None:
    """Logits 0 and ln 3 have the probabilities 0.5 and 0.75; -inf has 0, NaN counts as 0."""
    values = [0.0, np.log(3), -np.inf, np.nan]
    logits = np.array([values, [-np.inf] * 4], np.float32).reshape(2, 1, 1, 4)
    sums = np.full((2, 4), 7, np.int64)
    device.expected_dice(logits, (0, 0, 0), (1, 1, 4), (1.0, 1.0), (0.6, 0.5), sums=sums)
    assert sums[0, 0] == 1
    np.testing.assert_allclose(sums[0, 1:] / UNIT, [1.25, 0.75, 0.75], rtol=1e-6)
    assert sums[1].tolist() == [0, 0, 0, 0]


def test_voxels_below_one_unit_are_still_in_the_region(device: Ops) -> None:
    """A low temperature makes their probability sigmoid(-50)."""
    logits = np.full((1, 1, 1, 3), -5, np.float32)
    sums = np.empty((1, 4), np.int64)
    device.expected_dice(logits, (0, 0, 0), (1, 1, 3), (0.1,), (0.001,), sums=sums)
    assert sums.tolist() == [[3, 0, 0, 0]]


def test_only_the_box_counts_and_every_second_voxel(device: Ops) -> None:
    logits = np.full((1, 6, 6, 6), -99, np.float32)
    logits[0, 1:4:2, 2:5:2, 0:5:2] = 99
    sums = np.empty((1, 4), np.int64)
    device.expected_dice(logits, (1, 2, 0), (3, 3, 5), (1.0,), (0.5,), 2, sums=sums)
    assert sums.tolist() == [[12, 12 * UNIT, 12 * UNIT, UNIT]]


@pytest.mark.parametrize("n_threads", N_THREADS)
def test_any_number_of_threads_gives_the_same_bits(n_threads: int) -> None:
    one = ops.expected_dice(**{**EXAMPLE, "sums": None, "n_threads": 1})
    assert np.array_equal(ops.expected_dice(**{**EXAMPLE, "sums": None}, n_threads=n_threads), one)


def test_an_empty_box_has_no_sums() -> None:
    sums = ops.expected_dice(**{**EXAMPLE, "size": (0, 2, 2), "sums": None})
    assert not sums.any()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"step": 0}, OptionsError, "step: expected 1 or more, got 0"),
        ({"temperatures": (1.0, 0.0)}, OptionsError, "temperatures: expected numbers above 0"),
        ({"temperatures": (1.0,)}, OptionsError, "temperatures: expected one for each of 2"),
        ({"thresholds": (0.5,)}, OptionsError, "thresholds: expected one for each of 2 regions"),
        ({"thresholds": (0.5, 1.0)}, OptionsError, "probabilities between 0 and 1, got 1"),
        ({"offset": (9, 0, 0)}, OptionsError, "expected the box of (5, 6, 7) at (9, 0, 0)"),
        ({"size": (-1, 1, 1)}, OptionsError, "expected the box of (-1, 1, 1)"),
        ({"sums": np.empty((3, 4), np.int64)}, InputError, "sums: expected shape (2, 4)"),
        (
            {"logits": np.zeros((9, 8, 9, 10), np.float32), "sums": np.empty((9, 4), np.int64)},
            InputError,
            "expected at most 8 regions, got shape (9, 8, 9, 10)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        ops.expected_dice(**{**EXAMPLE, **changed})
