"""Mixed-up images: every wrong order is noticed, and no right one is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from fastbts import MODALITIES, Volume, read_case
from fastbts.read.mixups import mixed_up
from fastbts.read.sample import Sample
from tests.read.heads import head, warnings_of

ORDERS = list(permutations(range(4)))


@pytest.mark.parametrize("order", ORDERS[1:])
def test_each_wrong_order_is_named(order: tuple[int, ...]) -> None:
    looks = ", ".join(MODALITIES[i] for i in order)
    (warning,) = warnings_of(head().data[list(order)])
    assert warning == (
        f"the images look like {looks} given as flair, t1, t1ce, t2; check the files, or give "
        "their order (order=, nnunet_order=, --nnunet-order)"
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_right_order_has_no_warning(seed: int) -> None:
    assert warnings_of(head(seed).data) == []


def _z_scored(image: np.ndarray) -> np.ndarray:
    brain = image != 0
    return np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)


def _with_spike(data: np.ndarray) -> np.ndarray:
    data[:, 60, 60, 40] = 1e30
    return data


SAME_ORDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "scaled": lambda x: (x * np.array([0.01, 3, 1e4, 7])[:, None, None, None]).astype(np.float32),
    "z-scored": lambda x: np.stack([_z_scored(image) for image in x]),
    "negative": lambda x: np.where(x != 0, x.astype(np.float64) - 2000, 0),
    "spike": lambda x: _with_spike(x.astype(np.float64)),
    "constant background": lambda x: x + 17,
    "NaN outside": lambda x: np.where(x.any(axis=0), x, np.nan).astype(np.float32),
}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0), (0, 2, 1, 3)])
@pytest.mark.parametrize("change", SAME_ORDER)
def test_units_and_spikes_change_nothing(change: str, order: tuple[int, ...]) -> None:
    warnings = warnings_of(SAME_ORDER[change](head().data)[list(order)])
    looks = f"look like {', '.join(MODALITIES[i] for i in order)} given"
    assert any(looks in w for w in warnings) == (order != (0, 1, 2, 3)), warnings


def test_orientation_changes_nothing() -> None:
    turned = head().data[[1, 2, 3, 0]].transpose(0, 3, 1, 2)[:, ::-1]
    turn = np.zeros((4, 4))
    turn[[2, 0, 1, 3], [0, 1, 2, 3]] = -1, 1, 1, 1
    turn[2, 3] = head().data.shape[3] - 1
    sample = Sample.of(Volume(turned, head().affine @ turn))
    (warning,) = mixed_up(MODALITIES, sample)
    assert "look like t1, t1ce, t2, flair given as flair, t1, t1ce, t2" in warning


@pytest.mark.parametrize("missing", MODALITIES)
def test_three_images_in_the_right_order_have_no_warning(missing: str) -> None:
    left = [i for i, name in enumerate(MODALITIES) if name != missing]
    assert warnings_of(head().data[left], tuple(MODALITIES[i] for i in left)) == []


def test_a_mixup_of_three_images_is_named() -> None:
    (warning,) = warnings_of(head().data[[3, 1, 0]], ("flair", "t1", "t2"))
    assert "look like t2, t1, flair given as flair, t1, t2" in warning


def test_names_of_another_task_are_not_judged() -> None:
    assert warnings_of(head().data[[3, 2, 1, 0]], ("adc", "b0", "swi", "pd")) == []


def test_missing_contrast_agent_gives_a_warning() -> None:
    data = head().data.copy()
    noise = np.random.default_rng(0).normal(0, 3, data[1].shape)
    data[2] = np.where(data[1] != 0, 1.1 * data[1] + noise, 0)
    (warning,) = [w for w in warnings_of(data) if "shows no difference" in w]
    assert warning.startswith("t1ce shows no difference to t1 (correlation 0.99")


@pytest.mark.data
def test_real_cases_are_judged_right(val_cases: list[Path]) -> None:
    for case in val_cases:
        volume = read_case(case)
        assert not [w for w in volume.warnings if "look like" in w], case.name
        sample = Sample.of(volume)
        for order in ORDERS[1:]:
            given = [MODALITIES[order.index(i)] for i in range(4)]
            assert mixed_up(given, sample), (case.name, order)
