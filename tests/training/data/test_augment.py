"""Crops and augmentation, by hand and on a phantom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.data.plain import PLAIN
from training.config import AugmentConfig
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
from training.data.cases import TrainingCase


@pytest.fixture(scope="module")
def case(cases: list[TrainingCase]) -> TrainingCase:
    return cases[0]


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


def test_crops_are_centred_on_the_chosen_label() -> None:
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
        "tumour, if nothing enhances"
    )
    assert 0 in {middle(rng) for _ in range(20)}


def test_image_and_label_are_cropped_alike(case: TrainingCase) -> None:
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


def test_rotation_keeps_shape_size_and_alignment() -> None:
    """A ball keeps its shape and size in a crop that is no cube; labels move with the image."""
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (40, 60, 50)), indexing="ij")
    ball = torch.from_numpy((sum(a**2 for a in axes) < 12**2).astype(np.float32))[None]
    still = replace(PLAIN, rotate_rad=0.5, scale=0.0)
    image, label = rotate_and_scale(ball, ball, still, np.random.default_rng(0))
    assert (image - ball).abs().mean() < 0.01, "rotating a ball about its centre changes nothing"
    assert torch.equal(label, (image > 0.5).float()) or (label - image).abs().mean() < 0.01
    rod = torch.zeros(1, 40, 60, 50)
    rod[:, :, 29:31, 24:26] = 1
    rotated, _ = rotate_and_scale(rod, rod, still, np.random.default_rng(0))
    assert (rotated - rod).abs().sum() > 20, "a rod is rotated"
    grown, _ = rotate_and_scale(
        ball, ball, replace(PLAIN, rotate_rad=0.0, scale=0.3), np.random.default_rng(1)
    )
    zoom = float(grown.sum() / ball.sum()) ** (1 / 3)
    rng = np.random.default_rng(1)
    rng.uniform(size=3)
    assert zoom == pytest.approx(1 + rng.uniform(-0.3, 0.3), abs=0.02)


def test_low_grade_core_does_not_enhance(case: TrainingCase) -> None:
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
        "healthy tissue stays, except at the soft edge"
    )
    np.testing.assert_array_equal(painted == 0, image == 0)


def test_carve_mix_by_hand() -> None:
    """The donor's tumour is copied; the host keeps the rest, its background and its tumour."""
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


def test_thick_slices_by_hand() -> None:
    image = torch.arange(8.0).reshape(8, 1, 1).expand(8, 2, 2).contiguous()
    seen = {
        tuple(np.round(thick_slices(image, np.random.default_rng(seed))[:, 0, 0].tolist(), 3))
        for seed in range(40)
    }
    assert tuple(range(8)) in seen, (
        "unchanged along other axes, since the image varies along the first only"
    )
    assert (0.5, 0.75, 1.25, 1.75) not in seen
    assert (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5) in seen, (
        "pairs averaged to 0.5, 2.5, 4.5, 6.5 and interpolated"
    )


def test_bias_field_is_smooth_and_keeps_raw_zero() -> None:
    field = bias_field(torch.full((20, 20, 20), -2.0), np.random.default_rng(0)) + 3
    assert 0.5 < field.min() < field.max() < 2
    assert field.diff(dim=0).abs().max() < 0.1
    assert torch.allclose(
        bias_field(torch.full((4, 4, 4), -3.0), np.random.default_rng(0)), torch.tensor(-3.0)
    )
