"""Synthetic cases from an anatomy of two nested ellipsoids and a tumour of three nested boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import FastBTSError
from tests.training.data.plain import PLAIN
from training.config import load_recipe
from training.data.anatomy import Anatomy, ShapeFile, make_anatomy, read_anatomies
from training.data.cases import SYNTHETIC, CropDataset, TrainingCase
from training.data.synthetic import (
    BRAIN_MM,
    SHAPE,
    SyntheticConfig,
    confine,
    deform,
    load_synthetic,
    make_synthetic,
    place_tumour,
    to_label,
    write_synthetic,
)

STILL = SyntheticConfig(
    rotate_rad=0, scale=0, elastic_mm=0, tumour_scale=0, tumour_shift_mm=0, mass_effect_mm=0
)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (70, 90, 66)), indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    return make_anatomy(
        np.where(radius < 0.3, 4, np.where(radius < 0.8, 2, np.where(radius < 1, 42, 24)))
    )


def boxes() -> np.ndarray:
    """Oedema around a rim around necrosis, (i, j, k) LPS: left of and above the middle."""
    shape = np.zeros((48, 48, 31), np.uint8)
    for value, depth in ((2, 0), (4, 2), (1, 4)):
        shape[26 + depth : 38 - depth, 18 + depth : 30 - depth, 12 + depth : 24 - depth] = value
    return shape


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> ShapeFile:
    path = tmp_path_factory.mktemp("shapes") / "shapes.npz"
    np.savez(path, a=boxes())
    return ShapeFile(path)


@pytest.fixture(scope="module")
def case(anatomy: Anatomy, shapes: ShapeFile) -> TrainingCase:
    return make_synthetic([anatomy], shapes, 0, 0, SyntheticConfig(non_enhancing=0, any_contrast=0))


@pytest.mark.slow
def test_tumour_keeps_its_place_or_is_mirrored(shapes: ShapeFile) -> None:
    shape, sides = shapes.read(0), set()
    for seed in range(6):
        tumour = place_tumour(shape, STILL, np.random.default_rng(seed))
        assert ((tumour[0] >= tumour[1]) & (tumour[1] >= tumour[2])).all(), "nested"
        middle = (tumour[0] > 0.5).nonzero().double().mean(dim=0) - (torch.tensor(SHAPE) - 1) / 2
        # Middle of the boxes in mm: k 18 of 31 is 90, j 24 of 48 is 120, i 32 of 48 is 160. That
        # of the brain: 72, 129.5 and 119.
        assert middle[:2].tolist() == pytest.approx([90 - 72, 129.5 - 120], abs=4), (
            "up, and to the front"
        )
        assert abs(middle[2]) == pytest.approx(160 - 119, abs=4)
        sides.add(bool(middle[2] > 0))
        assert (tumour[0] > 0.5).sum() == pytest.approx(60**3, rel=0.2)
    assert sides == {True, False}
    assert not place_tumour(np.zeros_like(shape), STILL, np.random.default_rng(0)).any()


def test_undeformed_anatomy_has_the_mean_brain_size(anatomy: Anatomy) -> None:
    tissue, brain = deform(anatomy, np.zeros(3), STILL, np.random.default_rng(0))
    for axis, size in enumerate(BRAIN_MM):
        found = (tissue > 0).any(dim=tuple(a for a in range(3) if a != axis)).nonzero()
        assert int(found[-1] - found[0] + 1) == pytest.approx(size, abs=4)
    assert brain[tissue > 0].float().mean() > 0.97
    assert brain.float().mean() < 1.3 * (tissue > 0).float().mean() + 0.05, (
        "a thin layer of fluid around it"
    )


@pytest.mark.slow
def test_tumour_pushes_tissue_away(anatomy: Anatomy) -> None:
    """Fluid in the middle of the anatomy moves away from a tumour on its left."""
    middle = (np.array(SHAPE) - 1) / 2
    rest, _ = deform(anatomy, middle - [0, 0, 45], STILL, np.random.default_rng(0))
    pushed, _ = deform(
        anatomy, middle - [0, 0, 45], replace(STILL, mass_effect_mm=12), np.random.default_rng(0)
    )
    row = int(middle[0]), int(middle[1])
    inside = slice(40, 112)
    shift = (pushed == 0)[row][inside].nonzero().double().mean() - (rest == 0)[row][
        inside
    ].nonzero().double().mean()
    assert abs(shift) > 1


def test_confined_tumour_by_hand() -> None:
    tumour = torch.tensor([[1.0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]])[:, None, None]
    tissue, brain = torch.tensor([[[0, 0, 2, 1]]]), torch.tensor([[[True, True, True, False]]])
    assert to_label(confine(tumour, tissue, brain)).tolist() == [[[0, 1, 4, 0]]], (
        "no oedema in fluid, nothing outside"
    )


@pytest.mark.slow
def test_case_is_like_a_prepared_one(case: TrainingCase) -> None:
    assert case.image.dtype == np.float16
    assert case.image.shape == (4, *case.label.shape)
    assert set(np.unique(case.label)) == {0, 1, 2, 4}
    image = case.image.astype(np.float64)
    brain = (image != 0).any(axis=0)
    assert brain[case.label > 0].all()
    assert brain.any(axis=(1, 2)).all(), "cut to the brain box"
    assert np.abs(image[:, brain].mean(axis=1)).max() < 0.01
    assert np.abs(image[:, brain].std(axis=1) - 1).max() < 0.01
    flair, _, t1ce, t2 = ({v: m[case.label == v].mean() for v in (1, 2, 4)} for m in image)
    assert t1ce[4] > max(t1ce[1], t1ce[2]) + 0.3, "the rim enhances"
    assert min(flair[2], t2[1]) > 0.3, "oedema is bright on FLAIR, necrosis on T2"


@pytest.mark.slow
def test_a_case_depends_on_seed_and_number(
    anatomy: Anatomy, shapes: ShapeFile, case: TrainingCase
) -> None:
    config = SyntheticConfig(non_enhancing=0, any_contrast=0)
    again = make_synthetic([anatomy], shapes, 0, 0, config)
    np.testing.assert_array_equal(again.image, case.image)
    np.testing.assert_array_equal(again.label, case.label)
    assert case.group == SYNTHETIC


@pytest.mark.slow
def test_cases_are_written_once_and_read_back(
    anatomy: Anatomy, shapes: ShapeFile, case: TrainingCase, tmp_path: Path
) -> None:
    write_synthetic(tmp_path, [anatomy], shapes, 1, seed=3)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    write_synthetic(tmp_path, [anatomy], shapes, 1, seed=3)
    assert path.stat().st_mtime_ns == written
    (read,) = load_synthetic(tmp_path)
    assert (read.name, read.group, read.image.ndim) == ("synthetic_003_0000", SYNTHETIC, 4)
    assert read.image.shape != case.image.shape or (read.image != case.image).any(), "another seed"
    with pytest.raises(FastBTSError, match=r"no files synthetic_\*\.npz"):
        load_synthetic(tmp_path / "nowhere")


def test_synthetic_crops_do_not_change_the_others() -> None:
    recipe = load_recipe("smoke")
    recipe = replace(
        recipe, stages=(replace(recipe.stages[0], steps=24, crop=(16, 16, 16)),), augment=PLAIN
    )
    real = [
        TrainingCase(
            str(v), np.full((4, 16, 16, 16), v, np.float16), np.zeros((16, 16, 16), np.uint8)
        )
        for v in (1, 2)
    ]
    made = TrainingCase(
        "m", np.full((4, 16, 16, 16), 9, np.float16), np.full((16, 16, 16), 4, np.uint8), SYNTHETIC
    )
    plain, without = CropDataset(real, recipe), CropDataset([*real, made], recipe)
    mixed = CropDataset([*real, made], replace(recipe, synthetic=0.5))
    n_made = 0
    for i in range(24):
        image, label, _ = mixed[i]
        assert torch.equal(plain[i][0], without[i][0]), "a recipe without a share never sees them"
        n_made += bool(label.any())
        assert label.any() or torch.equal(image, plain[i][0])
    assert 6 <= n_made <= 18
    with pytest.raises(
        FastBTSError, match=r"synthetic: 0\.5 of the crops .* got 2 real and 0 synthetic"
    ):
        CropDataset(real, replace(recipe, synthetic=0.5))
    with pytest.raises(FastBTSError, match="got 0 real and 1 synthetic"):
        CropDataset([made], recipe)


@pytest.mark.data
@pytest.mark.slow
def test_real_anatomies_and_shapes_make_a_brain() -> None:
    data = ROOT.parent / "shared/data"
    if not (data / "head_label_maps").is_dir():
        pytest.skip("no head_label_maps in shared/data beside the checkout")
    anatomies, shapes = (
        read_anatomies(data / "head_label_maps"),
        ShapeFile(data / "tumour_shapes_128.npz"),
    )
    made = make_synthetic(anatomies, shapes, 0, 1)
    n_brain = int((made.image != 0).any(axis=0).sum())
    assert 1_000_000 < n_brain < 2_000_000, "a brain's volume in mm3"
    assert 1_000 < (made.label > 0).sum() < n_brain / 3
