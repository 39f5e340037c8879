"""Quality control of a case: the same image twice and a skull that was not removed."""

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


def warnings_of(images: dict[str, np.ndarray], spacing_mm: float = 1.0) -> list[str]:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    return list(inspected(Volume(np.stack(list(images.values())), affine, tuple(images))).warnings)


def test_a_good_case_has_no_warning() -> None:
    assert warnings_of(brain()) == []


def test_a_skull_gives_a_warning() -> None:
    images = brain()
    images["t1"] = np.where(images["t1"] == 0, np.arange(80, dtype=np.int16) + 1, images["t1"])
    (warning,) = warnings_of(images)
    assert warning.startswith("t1: 100% of the image (512 ml) is not zero, too much for a brain")
    assert "run a brain extraction first" in warning


def test_four_litres_give_a_skull_warning() -> None:
    large = [w for w in warnings_of(brain(), spacing_mm=3.0) if "skull" in w]
    assert [warning.split(":")[0] for warning in large] == list(MODALITIES)


def test_warnings_are_added_to_those_of_the_volume() -> None:
    images = brain()
    volume = Volume(np.stack(list(images.values())), np.eye(4), warnings=("first",))
    assert inspected(volume).warnings == ("first",)
    assert inspected(replace(volume, affine=3 * np.eye(4) - np.diag([0, 0, 0, 2]))).warnings[0] == (
        "first"
    )


def test_the_same_image_twice_is_refused() -> None:
    images = brain()
    with pytest.raises(CaseError, match=r"flair \(flair\) and t2 \(t2\) hold the same voxels"):
        warnings_of({**images, "t2": images["flair"]})
