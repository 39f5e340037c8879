"""T1 before and after contrast agent, told apart by the images of the phantom with a skull."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastbts.phantom.case import make_case
from fastbts.phantom.skull import with_skull
from fastbts.study.enhancement import MARGIN, enhancement
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


def test_equal_images_and_images_apart_decide_nothing() -> None:
    volume = make_case(0, SHAPE).volume
    far = np.eye(4)
    far[0, 3] = 1000
    assert enhancement(image(volume, "t1"), image(volume, "t1")) == 0
    assert enhancement(image(volume, "t1"), image(volume, "t1ce", far)) == 0
