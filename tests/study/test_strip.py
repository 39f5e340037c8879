"""The brain mask of raw images, by an engine of bright voxels and by the shipped one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import MODALITIES, EngineSpec, Geometry, OptionsError, load_engine
from fastbts.engine.interface import Engine
from fastbts.engine.load import BRAIN_ENGINE, default_engine_path
from fastbts.phantom import make_case
from fastbts.phantom.skull import with_skull
from fastbts.study.strip import brain_mask, head_tensor, scaled
from fastbts.study.stripping import trimmed
from fastbts.volume import to_network_axes

SPEC = EngineSpec(
    name="brain",
    modalities=("head",),
    regions=("brain",),
    thresholds=(0.5,),
    stride=8,
    spacing_mm=2.0,
    window=(32, 32, 32),
    percentiles=(0.0, 100.0),
)
# Stored LAS with slices of 5 mm.
LEAST_DICE = 0.95
GEOMETRY = Geometry((60, 64, 20), np.diag([-1.0, 1.0, 5.0, 1.0]))


class BrightEngine:
    """Logit 8 (intensity - 0.5) of each voxel."""

    text = None

    def __init__(self, spec: EngineSpec = SPEC) -> None:
        self.spec = spec
        self.description: dict[str, Any] = {}
        self.seen: list[tuple[int, ...]] = []

    def infer(
        self,
        tensor: NDArray[np.float32],
        text: NDArray[np.float32] | None = None,
        *,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        assert self.spec.takes(tensor.shape[2:])
        self.seen.append(tensor.shape)
        return 8 * (tensor - np.float32(0.5))

    def close(self) -> None:
        pass


def image() -> NDArray[np.int16]:
    voxels = np.zeros((60, 64, 20), np.int16)
    voxels[10:40, 20:50, 5:15] = 1000
    return voxels


def test_a_thin_field_of_view_is_padded_to_what_the_engine_takes() -> None:
    engine = BrightEngine()
    brain_mask([image()[:, :, 5:7]], replace(GEOMETRY, shape=(60, 64, 2)), engine)
    assert engine.seen == [(1, 1, 16, 32, 32)]


def test_the_mask_is_in_the_images_own_grid() -> None:
    engine = BrightEngine()
    voxels = image()
    voxels[2, 2, 2] = 1000  # a second part
    voxels[20:24, 30:34, 9] = 0  # a hole
    mask = brain_mask([voxels], GEOMETRY, engine)
    assert engine.seen == [(1, 1, 56, 32, 32)], "2 mm, multiples of the stride"
    assert mask.shape == voxels.shape
    wrong = mask != (image() > 0)
    assert wrong.sum() < 0.02 * mask.sum(), "up to the rounding of faces"
    assert not mask[2, 2, 2]
    assert mask[20:24, 30:34, 9].all()


def test_several_images_vote_by_their_logits() -> None:
    half = image().copy()
    half[10:25] = 1
    assert brain_mask([image(), image(), half], GEOMETRY, BrightEngine())[12, 30, 10]
    assert not brain_mask([image(), half, half], GEOMETRY, BrightEngine())[12, 30, 10]
    assert not brain_mask([np.zeros_like(half)], GEOMETRY, BrightEngine()).any()


def test_one_wrong_image_is_outvoted() -> None:
    """However sure it is: the mean would follow it."""
    wrong = image().copy()
    wrong[40:55, 20:50, 5:15] = 1000
    dim = image().copy()
    dim[40:55, 20:50, 5:15] = 450
    assert not brain_mask([dim, wrong, dim, dim], GEOMETRY, BrightEngine())[50, 30, 10]


def test_an_image_has_no_say_outside_its_field_of_view() -> None:
    """Else three short images cut the brain that the fourth one shows."""
    short = image()
    short[10:25] = 0
    assert brain_mask([image(), short, short, short], GEOMETRY, BrightEngine())[12, 30, 10]


@pytest.mark.parametrize("order", ["<", ">"])
def test_any_byte_order(order: str) -> None:
    """nibabel gives arrays whose dtype names its byte order."""
    voxels = image().astype(np.dtype(np.float32).newbyteorder(order))
    found = brain_mask([voxels], GEOMETRY, BrightEngine())
    assert np.array_equal(found, brain_mask([image()], GEOMETRY, BrightEngine()))


def test_other_engines_are_refused() -> None:
    with pytest.raises(OptionsError, match="one input and one region"):
        brain_mask([image()], GEOMETRY, BrightEngine(EngineSpec()))
    with pytest.raises(OptionsError, match="at least one image"):
        brain_mask([], GEOMETRY, BrightEngine())


def test_fine_voxels_are_averaged() -> None:
    stripes = np.zeros((64, 64, 64), np.float32)
    stripes[::2] = 1000
    stripes[:2, :2, :2] = 0, 0
    geometry = Geometry((64, 64, 64), np.diag([0.5, 0.5, 0.5, 1.0]))
    spec = EngineSpec(**{**SPEC.__dict__, "percentiles": (0.0, 100.0)})
    tensor, seen = head_tensor(to_network_axes(stripes, geometry), geometry, spec)
    assert seen.shape == (16, 16, 16)
    inside = tensor[0, 2:, 2:, 2:]
    assert inside.std() < 0.05, "stripes of 0.5 mm are gone, not aliased"


def test_scaling_ignores_the_units() -> None:
    values = np.random.default_rng(0).normal(300, 100, (20, 20, 20)).astype(np.float32)
    one, other = scaled(values), scaled(values * 7 + 100)
    assert one.dtype == np.float32
    assert (one.min(), one.max()) == (0, 1)
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert not scaled(np.full((4, 4, 4), 5, np.float32)).any()


def test_stripped_images_get_the_brain_of_the_reference() -> None:
    """Most images may reach beyond the brain: those of thick slices do."""
    thick = image().astype(np.float32)
    thick[8:42, 18:52, 4:16] = 500
    reference = image().astype(np.float32)
    reference[20:24, 30:34, 9] = 0  # a dark place inside
    data = np.stack([thick, thick, reference, thick])
    found = trimmed(data, GEOMETRY, 2)
    assert found.brain_ml == (image() > 0).sum() * GEOMETRY.voxel_ml
    assert np.array_equal(data[0] > 0, image() > 0)


@dataclass(frozen=True, eq=False)
class Head:
    """Images with a skull at 2 mm, brain and tumour."""

    images: NDArray[np.float32]
    brain: NDArray[np.bool_]
    tumour: NDArray[np.bool_]
    geometry: Geometry


@pytest.fixture(scope="module")
def shipped() -> Engine:
    return load_engine(default_engine_path(BRAIN_ENGINE), precision="fp32")


@pytest.fixture(scope="module")
def head() -> Head:
    bare = make_case(0, (120, 120, 78))
    made = with_skull(bare)
    grown = zip(made.labels.shape, bare.labels.shape, strict=True)
    brain = np.pad((bare.volume.data != 0).any(axis=0), [((a - b) // 2,) * 2 for a, b in grown])
    return Head(made.volume.data, brain, made.labels > 0, made.volume.geometry)


@pytest.mark.parametrize("names", [*((m,) for m in MODALITIES), MODALITIES])
def test_the_shipped_engine_finds_the_brain(
    head: Head, shipped: Engine, names: tuple[str, ...]
) -> None:
    images = [head.images[MODALITIES.index(name)] for name in names]
    found = brain_mask(images, head.geometry, shipped)
    overlap = 2 * (found & head.brain).sum() / (found.sum() + head.brain.sum())
    assert overlap > LEAST_DICE
    assert not (head.tumour & ~found).any()


@pytest.mark.parametrize("names", [*((m,) for m in MODALITIES), MODALITIES])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_tumour_at_the_surface_is_kept(
    head: Head, shipped: Engine, names: tuple[str, ...], side: int
) -> None:
    sick, tumour = with_tumour_at_the_surface(head, side)
    images = [sick[MODALITIES.index(name)] for name in names]
    found = brain_mask(images, head.geometry, shipped)
    assert (tumour & ~found).sum() <= 0.001 * tumour.sum()


def with_tumour_at_the_surface(
    head: Head, side: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Paints a ball of 15 mm radius whose middle is 9 mm deep in the brain, left or right."""
    _, j, k = np.argwhere(head.brain).mean(axis=0).round().astype(int)
    row = np.flatnonzero(head.brain[:, j, k])
    depth = round(9 / head.geometry.spacing_mm[0])
    middle = (row[0] + depth if side < 0 else row[-1] - depth), j, k
    away = np.moveaxis(np.indices(head.brain.shape), 0, -1) - middle
    ball = np.linalg.norm(away * head.geometry.spacing_mm, axis=-1) < 15
    tumour = ball & head.brain
    images = head.images.copy()
    for image, brightness in zip(images, (1.7, 0.75, 0.8, 1.4), strict=True):
        image[tumour] = brightness * np.median(image[head.brain])
    return images, tumour
