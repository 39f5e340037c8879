"""Quality control of a case: mixed-up images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastbts import MODALITIES, CaseError, Volume
from fastbts.read.quality import inspected


def brain(seed: int = 0) -> dict[str, np.ndarray]:
    """A ball of 33 mm radius in a cube of 80 mm, with fluid, and vessels with contrast agent."""
    rng = np.random.default_rng(seed)
    axis = np.arange(80) - 39.5
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 33**2
    fluid, vessels = (rng.random(inside.shape) < share for share in (0.1, 0.02))
    tissue = {name: rng.normal(500, 50, inside.shape) for name in MODALITIES}
    tissue["t2"] += 300 * fluid
    tissue["flair"] -= 200 * fluid
    tissue["t1ce"] += 400 * vessels
    return {name: np.where(inside, image, 0).astype(np.int16) for name, image in tissue.items()}


def warnings_of(images: dict[str, np.ndarray]) -> list[str]:
    volume = Volume(np.stack(list(images.values())), np.eye(4), tuple(images))
    return list(inspected(volume).warnings)


def test_a_good_case_has_no_warning() -> None:
    assert warnings_of(brain()) == []


@pytest.mark.parametrize(
    ("bright", "plain", "message"),
    [
        ("t1ce", "t1", "t1 and t1ce may be swapped: contrast agent is bright in t1, not in t1ce"),
        ("t2", "flair", "flair and t2 may be swapped: fluid is bright in flair, not in t2"),
    ],
)
def test_swapped_modalities_give_a_warning(bright: str, plain: str, message: str) -> None:
    images = brain()
    images[bright], images[plain] = images[plain], images[bright]
    assert warnings_of(images) == [f"{message}; check the files"]


def test_warnings_are_added_to_those_of_the_volume() -> None:
    images = brain()
    volume = Volume(np.stack(list(images.values())), np.eye(4), warnings=("first",))
    assert inspected(volume).warnings == ("first",)
    swapped = replace(volume, data=volume.data[[0, 2, 1, 3]])
    assert [w.split(" may")[0] for w in inspected(swapped).warnings] == ["first", "t1 and t1ce"]


def test_the_same_image_twice_is_refused() -> None:
    images = brain()
    with pytest.raises(CaseError, match=r"flair \(flair\) and t2 \(t2\) hold the same voxels"):
        warnings_of({**images, "t2": images["flair"]})
