"""T1 before and after contrast agent, told apart by the images of the phantom with a skull."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fastbts.phantom.case import make_case
from fastbts.phantom.skull import with_skull
from fastbts.study.choose import choose
from fastbts.study.enhancement import MARGIN, aligned_enhancement, enhancement
from fastbts.study.read_dicom import Found
from fastbts.study.series import Facts, Series
from fastbts.volume import MODALITIES, Geometry, Volume

SHAPE = (80, 80, 52)  # 3 mm


def image(volume: Volume, modality: str, move: np.ndarray | None = None) -> Series:
    data = volume.data[MODALITIES.index(modality)]
    affine = volume.affine if move is None else move @ volume.affine
    read: Callable[[], np.ndarray] = lambda: data  # noqa: E731
    return Series(modality, modality, Geometry(data.shape, affine), Facts(), (), "nifti", read)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("skull", [False, True], ids=["stripped", "head"])
def test_the_order_is_found(seed: int, skull: bool) -> None:
    case = make_case(seed, SHAPE)
    volume = with_skull(case).volume if skull else case.volume
    t1, t1ce = image(volume, "t1"), image(volume, "t1ce")
    assert enhancement(t1, t1ce) > MARGIN
    assert enhancement(t1ce, t1) == pytest.approx(-enhancement(t1, t1ce))


def moved() -> np.ndarray:
    """By 12 degrees about z and 40 mm."""
    move = np.eye(4)
    move[:2, :2] = [[0.978, -0.208], [0.208, 0.978]]
    move[:3, 3] = 25, -20, 24
    return move


@pytest.mark.parametrize("skull", [False, True], ids=["stripped", "head"])
def test_images_that_are_not_aligned_are_registered_first(skull: bool) -> None:
    case = make_case(0, SHAPE)
    volume = with_skull(case).volume if skull else case.volume
    t1, t1ce = image(volume, "t1", moved()), image(volume, "t1ce")
    assert enhancement(t1, t1ce) < MARGIN
    assert aligned_enhancement(t1, t1ce) > MARGIN
    assert aligned_enhancement(t1ce, t1) < -MARGIN


def test_a_study_chosen_by_unaligned_images() -> None:
    """Nothing in the headers tells the T1 apart, and the first one is the T1ce."""
    volume = with_skull(make_case(0, SHAPE)).volume
    series = []
    for n, modality in enumerate(("t1ce", "t1", "flair", "t2"), 1):
        text = modality if n > 2 else f"T1 tra {n}"
        one = image(volume, modality, moved() if modality == "t1" else None)
        facts = Facts(texts=(text,), acquired=("", float(n)))
        series.append(replace(one, name=text, facts=facts))
    choice = choose(Found(tuple(series)))
    assert choice.series["t1ce"] is series[0]
    assert choice.series["t1"] is series[1]
    assert choice.warnings == ()


def test_images_that_cannot_be_registered_decide_nothing() -> None:
    volume = make_case(0, SHAPE).volume
    t1 = image(volume, "t1")
    noise = np.random.default_rng(0).random(SHAPE)
    assert aligned_enhancement(t1, replace(t1, read=lambda: noise)) == 0
    assert aligned_enhancement(t1, replace(t1, read=lambda: np.zeros(SHAPE))) == 0


def test_equal_images_and_images_apart_decide_nothing() -> None:
    volume = make_case(0, SHAPE).volume
    far = np.eye(4)
    far[0, 3] = 1000
    assert enhancement(image(volume, "t1"), image(volume, "t1")) == 0
    assert enhancement(image(volume, "t1"), image(volume, "t1ce", far)) == 0
