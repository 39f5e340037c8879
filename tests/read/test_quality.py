"""Quality control of a case: the same image twice, images in the wrong order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastbts import MODALITIES, CaseError, Volume
from fastbts.read.quality import inspected


def brain(seed: int = 0) -> dict[str, np.ndarray]:
    """A ball of 33 mm radius in a cube of 80 mm: tissue that all images show, and noise."""
    rng = np.random.default_rng(seed)
    axis = np.arange(80) - 39.5
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 33**2
    tissue = rng.normal(500, 50, inside.shape)
    images = {name: tissue + rng.normal(0, 10, inside.shape) for name in MODALITIES}
    return {name: np.where(inside, image, 0).astype(np.int16) for name, image in images.items()}


def warnings_of(images: dict[str, np.ndarray]) -> list[str]:
    volume = Volume(np.stack(list(images.values())), np.eye(4), tuple(images))
    return list(inspected(volume).warnings)


def test_a_good_case_has_no_warning() -> None:
    assert warnings_of(brain()) == []


def test_warnings_are_added_to_those_of_the_volume() -> None:
    images = brain()
    volume = Volume(np.stack(list(images.values())), np.eye(4), warnings=("first",))
    assert inspected(volume).warnings == ("first",)
    data = volume.data.copy()
    data[1] = np.roll(data[1], 5, 0)
    first, second, *_ = inspected(replace(volume, data=data)).warnings
    assert (first, second.split(" and")[0]) == ("first", "t1: its brain")


def test_the_same_image_twice_is_refused() -> None:
    images = brain()
    with pytest.raises(CaseError, match=r"flair \(flair\) and t2 \(t2\) hold the same voxels"):
        warnings_of({**images, "t2": images["flair"]})
