"""Synthetic heads: shapes, labels, the same bits for the same number, tumours inside the mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import FastBTSError
from tests.training.data.blocks import block_case, head_labels, write_head, write_shape
from training.config import HeadConfig, Recipe, load_recipe
from training.data import head_sources as hs
from training.data.anatomy import ShapeFile
from training.data.head_sources import make_brain, make_head, read_heads
from training.data.heads import (
    REAL_MEAN,
    REAL_SPREAD,
    HeadCrops,
    HeadMaker,
    intensities,
    place,
    validation_heads,
    with_brain,
)
from training.data.scan import field_of_view, sliced

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (40, 44, 40)
ODD = (41, 45, 41)  # no voxel has its middle on a surface of the blocks
WHOLE = HeadConfig(cropped=0, shift_mm=0, rotate_rad=0, scale=0, elastic_mm=0)


def recipe(**heads: float) -> Recipe:
    base = load_recipe("smoke-brain")
    return replace(base, heads=replace(base.heads, **heads))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> ShapeFile:
    return ShapeFile(write_shape(tmp_path_factory.mktemp("shapes") / "shapes.npz"))


@pytest.fixture(scope="module")
def maker(shapes: ShapeFile) -> HeadMaker:
    return HeadMaker([make_head(head_labels())], shapes)


def test_a_head_by_its_labels() -> None:
    head = make_head(head_labels())
    assert head.kind.shape == head.brain.shape
    row = head.kind[37, 37]
    at = [int(row[6 + depth]) for depth in (-1, 0, 3, 6, 7, 11, 14, 20, 31)]
    skin = hs.FAT + 1 + hs.OUTSIDE.index(511)
    outside = [hs.AIR, skin, hs.FAT, hs.BONE, hs.MARROW]
    assert at == [*outside, hs.CSF, hs.GREY, hs.WHITE, hs.CSF], "a ventricle is fluid"
    assert head.size.tolist() == [38, 38, 38], "mm"
    assert head.brain[38, 38, 19:24].all(), "a sulcus belongs to the mask"


def test_heads_are_read_from_a_folder(tmp_path: Path) -> None:
    (head,) = read_heads(write_head(tmp_path / "heads"))
    assert torch.equal(head.kind, make_head(head_labels().T).kind), "(Z, Y, X)"
    with pytest.raises(FastBTSError, match=r"no \*\.nii\.gz"):
        read_heads(tmp_path)
    with pytest.raises(FastBTSError, match="no voxel has a FreeSurfer label"):
        make_head(np.full((4, 4, 4), 507))


def test_a_brain_of_a_case() -> None:
    brain = make_brain(block_case())
    assert brain.images.shape == (4, 49, 48, 46)
    assert brain.seen.sum() == brain.brain.sum() == 37 * 36 * 34
    assert brain.tumour.sum() == 1000
    assert brain.size.tolist() == [37, 36, 34], "mm"


def test_zeros_outside_a_real_brain_do_not_darken_its_surface() -> None:
    case = block_case()
    case.image[case.image != 0] = 2
    rng, value = np.random.default_rng(0), REAL_MEAN + 2 * REAL_SPREAD
    grid = place(SIZE, recipe(), rng)
    image, inside, _ = with_brain(torch.zeros(SIZE), make_brain(case), 0, grid, value, rng)
    assert image[inside > 0].sub(value).abs().max() < 0.01, "in fluid as bright as the brain"


def test_a_head_is_an_image_and_a_mask(maker: HeadMaker) -> None:
    sample = maker(recipe(), SIZE, 3)
    assert sample.image.shape == (1, *SIZE)
    assert sample.image.dtype == torch.float32
    assert (sample.image.min(), sample.image.max()) == (0, 1)
    assert sample.brain.shape == sample.tumour.shape == SIZE
    assert sample.brain.dtype == torch.uint8
    assert set(sample.brain.unique().tolist()) == {0, 1}


def test_the_mask_is_the_brain(maker: HeadMaker) -> None:
    plain = replace(recipe(), heads=replace(WHOLE, tumour=0))
    for index in range(3):
        volume = maker(plain, ODD, index).brain.sum() * 8
        assert abs(volume - 38**3) < 0.1 * 38**3


def test_equal_numbers_give_equal_heads(maker: HeadMaker) -> None:
    one, same, other = (maker(recipe(), SIZE, index) for index in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.brain, same.brain)
    assert not torch.equal(one.image, other.image)
    changed = maker(replace(recipe(), seed=1), SIZE, 5)
    assert not torch.equal(one.image, changed.image)


@pytest.mark.parametrize("real", [False, True])
def test_a_tumour_is_always_in_the_mask(maker: HeadMaker, real: bool) -> None:
    brains = [make_brain(block_case())] if real else []
    found = replace(maker, brains=brains)
    wanted = recipe(tumour=1.0, real_brain=1.0, bulge=0.5, cropped=0.8, stripped=0.2)
    samples = [found(wanted, SIZE, index) for index in range(12)]
    assert not any((s.tumour.bool() & ~s.brain.bool()).any() for s in samples)
    assert sum(bool(s.tumour.any()) for s in samples) > 8


def test_a_bulging_tumour_makes_the_mask_larger(maker: HeadMaker) -> None:
    whole = replace(WHOLE, tumour=1.0)
    without, bulging = (
        [
            int(maker(replace(recipe(), heads=replace(whole, bulge=chance)), SIZE, i).brain.sum())
            for i in range(8)
        ]
        for chance in (0.0, 1.0)
    )
    assert all(a <= b for a, b in zip(without, bulging, strict=True))
    assert without != bulging


def test_a_real_brain_keeps_its_size_and_tumour(maker: HeadMaker) -> None:
    found = replace(maker, brains=[make_brain(block_case())])
    sample = found(replace(recipe(), heads=replace(WHOLE, real_brain=1.0)), SIZE, 0)
    assert abs(int(sample.brain.sum()) * 8 - 37 * 36 * 34) < 0.1 * 37 * 36 * 34
    assert abs(int(sample.tumour.sum()) * 8 - 1000) < 300


def test_a_stripped_head_has_nothing_outside_the_brain(maker: HeadMaker) -> None:
    sample = maker(recipe(stripped=1.0), SIZE, 1)
    assert not sample.image[0][sample.brain == 0].any()


def test_intensities_are_near_those_of_an_image_or_arbitrary() -> None:
    rng = np.random.default_rng(0)
    t2 = np.mean([intensities(3, HeadConfig(any_contrast=0), rng) for _ in range(50)], axis=0)
    assert t2[hs.CSF] > t2[hs.GREY] > t2[hs.WHITE] > t2[hs.BONE]
    drawn = np.array([intensities(3, HeadConfig(any_contrast=1), rng) for _ in range(200)])
    assert 0.3 < (drawn[:, hs.CSF] > drawn[:, hs.WHITE]).mean() < 0.7


def test_crops_of_a_run_change_size_with_the_stage(maker: HeadMaker) -> None:
    smoke = load_recipe("smoke-brain")
    crops = HeadCrops(maker, smoke)
    assert len(crops) == 12
    image, label, teacher = crops[0]
    assert (image.shape, label.shape, teacher) == ((1, 32, 32, 32), (32, 32, 32), None)
    assert crops[11][0].shape == (1, 32, 48, 32)
    first = validation_heads(maker, smoke, 1)[0]
    assert first[0].shape == (1, 32, 48, 32)
    assert not torch.equal(first[0], crops[6][0])


def test_slices_are_thick_along_one_axis() -> None:
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.random((24, 24, 24), np.float32))
    thick = sliced(image, 2.0, rng)
    ratios = [float(thick.diff(dim=a).std() / image.diff(dim=a).std()) for a in range(3)]
    assert thick.shape == image.shape
    assert min(ratios) < 0.7 * sorted(ratios)[1]


def test_the_field_of_view_is_a_box() -> None:
    inside = torch.zeros(30, 30, 30, dtype=torch.uint8)
    inside[10:20, 10:20, 10:20] = 1
    rng = np.random.default_rng(0)
    assert field_of_view(inside, 0.0, rng).all()
    for _ in range(20):
        seen = field_of_view(inside, 1.0, rng)
        sides = [int(seen.any(dim=a).any(dim=b).sum()) for a, b in ((2, 1), (2, 0), (1, 0))]
        assert seen.sum() == np.prod(sides) > 0
    assert field_of_view(torch.zeros_like(inside), 1.0, rng).all()
