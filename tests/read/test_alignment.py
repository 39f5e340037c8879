"""Images of another place or patient are noticed; aligned ones are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastbts import MODALITIES, GeometryError, Volume, read_case
from fastbts.read.alignment import misplaced
from fastbts.read.quality import inspected
from fastbts.read.sample import Sample, not_background, shrunk
from tests.read.heads import head, warnings_of

Change = Callable[[np.ndarray], np.ndarray]
# Stored LPS at 2 mm: i runs to the left.
MOVED: dict[str, Change] = {
    "shifted by 6 mm": lambda x: np.roll(x, 3, 0),
    "shifted by 16 mm": lambda x: np.roll(x, 8, 1),
    "shifted up by 10 mm": lambda x: np.roll(x, 5, 2),
    "half missing": lambda x: x * (np.arange(x.shape[2]) > 40),
}


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("change", MOVED)
def test_a_brain_in_another_place_gives_a_warning(change: str, which: int) -> None:
    data = head().data.copy()
    data[which] = MOVED[change](data[which])
    warning = next(w for w in warnings_of(data) if "its brain and that of" in w)
    assert MODALITIES[which] in warning
    assert "expected at least 0.97" in warning
    assert "register the images with each other" in warning


@pytest.mark.parametrize("which", range(4))
def test_a_mirrored_image_gives_a_warning(which: int) -> None:
    """Also where its brain has the same outline as the others."""
    data = head().data.copy()
    data[which] = data[which][::-1]
    data *= (data != 0).all(axis=0)
    (warning,) = [w for w in warnings_of(data) if "mirrored left to right" in w]
    assert warning.startswith(MODALITIES[which])
    assert "check its orientation" in warning


def test_other_edges_inside_the_same_outline_give_a_warning() -> None:
    data = head().data.copy()
    data[3] = np.roll(data[3], 8, 1)
    data *= (data != 0).all(axis=0)
    assert any(w.startswith("t2: its edges do not fit the other images") for w in warnings_of(data))


def test_brains_with_little_in_common_are_refused() -> None:
    data = head().data.copy()
    data[0] *= np.arange(data.shape[3]) > 55
    with pytest.raises(
        GeometryError, match=r"flair: its brain and that of t\w+ have a Dice of 0\.\d\d; expected"
    ):
        warnings_of(data)


def test_ringing_outside_the_brain_gives_no_warning() -> None:
    data = head().data.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1e-3 * data[0].max(), data[0].shape)
    data[0] = np.where(data[0] == 0, noise, data[0])
    assert not [w for w in warnings_of(data) if "skull" not in w]


def test_an_image_without_background_is_left_out() -> None:
    data = head().data.astype(np.float32)
    data[1] = np.random.default_rng(0).normal(300, 50, data[1].shape)
    assert not [w for w in warnings_of(data) if "its brain and that of" in w]


def test_a_head_with_its_skull_is_left_out() -> None:
    """Normalisation cuts it to the brain of the others."""
    data = head().data.copy()
    i, j, k = np.ogrid[:120, :120, :78]
    skull = (i - 60) ** 2 + (j - 60) ** 2 + (k - 39) ** 2 < 48**2
    data[1] = np.where(data[1] == 0, 500 * skull, data[1])
    assert warnings_of(data) == []


def test_one_image_has_nothing_to_be_compared_with() -> None:
    sample = Sample.of(Volume(head().data[:1], head().affine, ("flair",)))
    assert misplaced(["flair"], ["flair"], sample) == []


def test_masks_are_shrunk_from_all_sides() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 1:5, 1:6] = True
    inside = shrunk(mask, (1, 1, 2))
    assert np.argwhere(inside).tolist() == [[2, 2, 3], [2, 3, 3]]
    assert not shrunk(np.ones((2, 2, 2), bool), (3, 3, 3)).any()


def test_background_is_what_the_border_shows() -> None:
    image = np.full((6, 6, 6), -1.0, np.float32)
    image[2:4, 2:4, 2:4] = 0
    assert np.count_nonzero(not_background(image)) == 8


@pytest.mark.data
def test_real_cases_have_no_false_alarm(val_cases: list[Path]) -> None:
    for case in val_cases:
        assert read_case(case).warnings == (), case.name


@pytest.mark.data
def test_real_images_that_were_moved_give_a_warning(val_cases: list[Path]) -> None:
    volume = read_case(next(c for c in val_cases if c.name.endswith("AMH_1")))
    for which in range(4):
        for change in (*MOVED.values(), lambda x: x[::-1]):
            data = volume.data.copy(order="K")
            data[which] = change(data[which])
            assert inspected(Volume(data, volume.affine)).warnings, which


@pytest.mark.data
def test_a_real_image_of_another_patient_gives_a_warning(val_cases: list[Path]) -> None:
    names = {"AMH_1", "ABM_1"}
    one, other = (read_case(c) for c in val_cases if c.name[-5:] in names)
    for which in range(4):
        data = one.data.copy(order="K")
        data[which] = other.data[which]
        assert inspected(Volume(data, one.affine)).warnings, which
