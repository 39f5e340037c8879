from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import EngineSpec, FastBTSError, Volume
from fastbts.pipeline.normalize import preprocess
from training.config import AugmentConfig, Recipe, StageConfig, load_recipe
from training.data.augment import (
    Augment,
    Crop,
    bias_field,
    carve_mix,
    crop_start,
    cut,
    low_grade_core,
    rotate_and_scale,
    thick_slices,
)
from training.data.cases import (
    Batches,
    CropDataset,
    TrainingCase,
    find_cases,
    group_of,
    prepare_case,
    read_labels,
)

PLAIN = AugmentConfig(
    mirror=(0, 0, 0),
    affine=0,
    intensity=0,
    contrast=0,
    noise=0,
    smooth=0,
    thick_slices=0,
    bias_field=0,
)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, write_small_case: Callable[[int, Path], None]
) -> Path:
    path = tmp_path_factory.mktemp("data") / "case_a"
    write_small_case(1, path)
    return path


@pytest.fixture(scope="module")
def case(folder: Path) -> TrainingCase:
    return prepare_case(folder, EngineSpec(), folder.parent / "cache")


def test_prepared_case_keeps_every_tumour_voxel(folder: Path, case: TrainingCase) -> None:
    assert case.image.shape == (4, *case.label.shape)
    assert (
        np.bincount(case.label.ravel(), minlength=5)[1:].tolist()
        == np.bincount(read_labels(folder).ravel(), minlength=5)[1:].tolist()
    )
    brain = (case.image != 0).any(axis=0)
    assert brain[case.label > 0].mean() > 0.99, "labels lie on the image"
    assert abs(float(case.image[0][brain].astype(np.float64).mean())) < 0.01
    again = prepare_case(folder, EngineSpec(), folder.parent / "cache")
    np.testing.assert_array_equal(again.image, case.image)


def random_crop(
    image: np.ndarray,
    label: np.ndarray,
    crop: tuple[int, ...],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Crop:
    return cut(image, label, crop_start(label, crop, config, rng), crop)


def test_crop_by_hand() -> None:
    image = np.arange(8, dtype=np.float16).reshape(1, 8, 1, 1)
    label = np.zeros((8, 1, 1), np.uint8)
    crop, _ = random_crop(image, label, (8, 1, 1), PLAIN, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, image)
    padded, _ = random_crop(image, label, (12, 1, 1), PLAIN, np.random.default_rng(0))
    assert padded.ravel().tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0], (
        "symmetric padding, as at inference"
    )


def test_crops_are_centred_on_what_is_wanted() -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[10:20, 10:20, 10:20], label[30, 30, 30] = 2, 4

    def middle(rng: np.random.Generator, label: np.ndarray = label, **chances: float) -> int:
        config = replace(PLAIN, **{"tumour_centred": 0.0, "et_centred": 0.0, **chances})
        d, h, w = crop_start(label, (4, 4, 4), config, rng) + 2
        return int(label[d, h, w])

    rng = np.random.default_rng(0)
    assert {middle(rng, et_centred=1.0) for _ in range(20)} == {4}
    assert {middle(rng, tumour_centred=1.0) for _ in range(20)} == {2}
    assert {middle(rng, np.minimum(label, 2), et_centred=1.0) for _ in range(20)} == {2}, (
        "tumour, where nothing enhances"
    )
    assert 0 in {middle(rng) for _ in range(20)}


def test_crops_stay_aligned_and_see_tumour(case: TrainingCase) -> None:
    tagged = np.where(case.label > 0, np.float16(9), np.float16(1))[None]
    n_tumour = 0
    for seed in range(20):
        image, label = random_crop(
            tagged,
            case.label,
            (32, 48, 32),
            AugmentConfig(tumour_centred=1.0),
            np.random.default_rng(seed),
        )
        np.testing.assert_array_equal(image[0] == 9, label > 0)
        n_tumour += bool(label.any())
    assert n_tumour == 20


def test_augmentation_is_seeded_keeps_background_and_labels(case: TrainingCase) -> None:
    image, label = random_crop(
        case.image,
        case.label,
        (64, 64, 64),
        AugmentConfig(tumour_centred=1.0),
        np.random.default_rng(0),
    )
    augment = Augment(
        AugmentConfig(affine=1.0, intensity=1.0, noise=1.0, thick_slices=1.0, bias_field=1.0)
    )
    one, two, other = augment(image, label, 5), augment(image, label, 5), augment(image, label, 6)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert set(one[1].unique().tolist()) <= {0, 1, 2, 4}
    assert one[0].dtype == torch.float32
    untouched = Augment(PLAIN)(image, label, 5)
    assert torch.equal(untouched[0], torch.from_numpy(image))
    assert torch.equal(untouched[1], torch.from_numpy(label))


def test_turning_keeps_shape_size_and_alignment() -> None:
    """A ball stays a ball of the right size in a crop that is no cube, and the labels move with the image."""
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (40, 60, 50)), indexing="ij")
    ball = torch.from_numpy((sum(a**2 for a in axes) < 12**2).astype(np.float32))[None]
    still = replace(PLAIN, rotate_rad=0.5, scale=0.0)
    image, label = rotate_and_scale(ball, ball, still, np.random.default_rng(0))
    assert (image - ball).abs().mean() < 0.01, "turning a ball about its centre changes nothing"
    assert torch.equal(label, (image > 0.5).float()) or (label - image).abs().mean() < 0.01
    rod = torch.zeros(1, 40, 60, 50)
    rod[:, :, 29:31, 24:26] = 1
    turned, _ = rotate_and_scale(rod, rod, still, np.random.default_rng(0))
    assert (turned - rod).abs().sum() > 20, "a rod does turn"
    grown, _ = rotate_and_scale(
        ball, ball, replace(PLAIN, rotate_rad=0.0, scale=0.3), np.random.default_rng(1)
    )
    zoom = float(grown.sum() / ball.sum()) ** (1 / 3)
    rng = np.random.default_rng(1)
    rng.uniform(size=3)
    assert zoom == pytest.approx(1 + rng.uniform(-0.3, 0.3), abs=0.02)


def test_low_grade_core_enhances_no_more(case: TrainingCase) -> None:
    image, label = random_crop(
        case.image,
        case.label,
        (64, 64, 64),
        AugmentConfig(tumour_centred=1.0),
        np.random.default_rng(0),
    )
    painted, relabelled = low_grade_core(image, label, np.random.default_rng(0))
    core = relabelled == 1
    assert not (relabelled == 4).any()
    np.testing.assert_array_equal(relabelled > 0, label > 0)
    assert core[np.isin(label, (1, 4))].all(), "the core never shrinks"
    assert painted[2][core].mean() < -0.3 < 0.5 < painted[3][core].mean(), (
        "dark on T1ce, bright on T2"
    )
    far = label == 0
    assert np.abs(painted - image)[:, far].mean() < 0.02, (
        "healthy tissue stays, but for the soft edge"
    )
    np.testing.assert_array_equal(painted == 0, image == 0)


def test_carve_mix_by_hand() -> None:
    """The donor's tumour, a cube, comes with or without its rim; the host keeps the rest, its background and its own tumour."""
    size = (24, 24, 24)
    host, donor = np.full((1, *size), 1.0, np.float32), np.full((1, *size), 5.0, np.float32)
    host_label, donor_label = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    host[:, 20:], host_label[2:4, 2:4, 2:4], donor_label[8:16, 8:16, 8:16] = 0, 2, 4
    image, label = carve_mix((host, host_label), (donor, donor_label), np.random.default_rng(0))
    assert (donor_label[label == 4] == 4).all()
    assert (label[9:15, 9:15, 9:15] == 4).all()
    np.testing.assert_array_equal(label[2:4, 2:4, 2:4], 2)
    assert (image[0, 11:13, 11:13, 11:13] == 5).all()
    assert (image[0, :3] == 1).all()
    assert (image[0, 20:] == 0).all()
    edge = np.unique(image[0, :20])
    assert len(edge) > 2, "the edge is blended"


def test_carved_crops_are_a_function_of_seed_and_index(case: TrainingCase) -> None:
    recipe = Recipe(
        stages=(StageConfig(steps=3, crop=(32, 32, 32)),), augment=AugmentConfig(carve_mix=1.0)
    )
    mixed, plain = (
        CropDataset([case, case], r) for r in (recipe, replace(recipe, augment=AugmentConfig()))
    )
    assert all(torch.equal(a, b) for a, b in zip(mixed[1][:2], mixed[1][:2], strict=True))
    assert not torch.equal(mixed[1][0], plain[1][0])


def test_thick_slices_by_hand() -> None:
    image = torch.arange(8.0).reshape(8, 1, 1).expand(8, 2, 2).contiguous()
    seen = {
        tuple(np.round(thick_slices(image, np.random.default_rng(seed))[:, 0, 0].tolist(), 3))
        for seed in range(40)
    }
    assert tuple(range(8)) in seen, (
        "thick in a plane: unchanged, since the image varies along the first axis only"
    )
    assert (0.5, 0.75, 1.25, 1.75) not in seen
    assert (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5) in seen, (
        "pairs averaged to 0.5, 2.5, 4.5, 6.5 and interpolated"
    )


def test_bias_field_is_smooth_and_spares_the_zero() -> None:
    field = bias_field(torch.full((20, 20, 20), -2.0), np.random.default_rng(0)) + 3
    assert 0.5 < field.min() < field.max() < 2
    assert field.diff(dim=0).abs().max() < 0.1
    assert torch.allclose(
        bias_field(torch.full((4, 4, 4), -3.0), np.random.default_rng(0)), torch.tensor(-3.0)
    )


def test_rare_groups_have_more_turns(case: TrainingCase) -> None:
    recipe = replace(load_recipe("smoke"), turns={"LGG": 3})
    cases = [case, replace(case, label=np.full_like(case.label, 4), group="LGG")]
    n_low = sum(
        bool((CropDataset(cases, recipe)[i][1] == 4).float().mean() > 0.3) for i in range(8)
    )
    assert n_low == 6


def test_crops_are_a_function_of_seed_and_number(case: TrainingCase) -> None:
    recipe = load_recipe("smoke")
    one, two = CropDataset([case], recipe), CropDataset([case], recipe)
    assert torch.equal(one[4][0], two[4][0])
    assert not torch.equal(one[4][0], one[5][0])


def test_batches_continue_where_a_run_stopped() -> None:
    recipe = load_recipe("smoke")  # 3 steps of 1 crop, 3 steps of 2 crops
    assert list(Batches(recipe)) == [[0], [1], [2], [3, 4], [5, 6], [7, 8]]
    assert list(Batches(recipe, 4)) == [[5, 6], [7, 8]]
    assert len(Batches(recipe, 4)) == 6


def test_endless_batches_go_on(case: TrainingCase) -> None:
    size = (32, 32, 32)
    recipe = Recipe(
        stages=(StageConfig(2, size), StageConfig(0, (32, 48, 32), batch=2), StageConfig(1, size))
    )
    first = [*itertools.islice(Batches(recipe), 4)]
    assert first == [[0], [1], [2, 3], [4, 5]]
    assert next(iter(Batches(recipe, 1_000_000))) == [1_999_998, 1_999_999]
    assert len(Batches(recipe)) == recipe.steps
    crops = CropDataset([case], recipe)
    assert crops[1][1].shape == size
    assert crops[1_999_999][1].shape == (32, 48, 32)


def test_ranks_share_every_step(case: TrainingCase) -> None:
    recipe = load_recipe("smoke")
    one, two = (list(Batches(recipe, 0, rank, 2)) for rank in (0, 1))
    assert one == [[0], [2], [4], [6, 7], [10, 11], [14, 15]]
    assert two == [[1], [3], [5], [8, 9], [12, 13], [16, 17]]
    crops = CropDataset([case], recipe, ranks=2)
    assert len(crops) == 18
    assert {crops[i][1].shape for i in (0, 5)} == {(32, 32, 32)}
    assert {crops[i][1].shape for i in (6, 17)} == {(32, 48, 32)}


def test_groups(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    assert group_of(tmp_path / "a") == ""
    table.write_text("case,split,grade,group\na,train,HGG,2021\nb,val,,SSA\n")
    assert [group_of(tmp_path / name) for name in "abc"] == ["2021", "SSA", ""]
    table.write_text("case,split,grade\na,train,LGG\n")
    assert group_of(tmp_path / "a") == "LGG", "the grade, where there are no groups"


def test_negative_brain_voxels_are_clipped_like_any_outlier() -> None:
    """Interpolation leaves a few below zero: they stay brain, and all other voxels stay as they are."""
    image = np.zeros((4, 32, 32, 32), np.float32)
    image[:] = np.random.default_rng(0).uniform(100, 900, image.shape)
    negative, middle = (
        image.copy(),
        (slice(None), *[slice(15, 17)] * 3),
    )  # 8 of 32768 voxels, below the 0.1st percentile
    negative[middle] = -500
    plain, changed = (
        preprocess(Volume(voxels, np.eye(4)), EngineSpec()).tensor for voxels in (image, negative)
    )
    lowest = changed.min((1, 2, 3))
    assert (changed[middle] == lowest[:, None, None, None]).all()
    np.testing.assert_allclose(lowest, plain.min((1, 2, 3)), atol=0.01)
    changed[middle] = plain[middle]
    np.testing.assert_allclose(changed, plain, atol=0.01)


def test_splits(folder: Path, tmp_path: Path) -> None:
    assert find_cases(folder.parent, "train")[-1].name in ("case_a", "cache")
    (tmp_path / "cases.csv").write_text("case,split\na,train\nb,val\n")
    assert find_cases(tmp_path, "val") == [tmp_path / "b"]
    with pytest.raises(FastBTSError, match="no cases of split 'test'"):
        find_cases(tmp_path, "test")
