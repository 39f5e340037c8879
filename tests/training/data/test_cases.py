"""Prepared cases, the crops of each step, groups and splits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import EngineSpec, FastBTSError
from training.config import AugmentConfig, Recipe, StageConfig, load_recipe
from training.data.cases import (
    Batches,
    CropDataset,
    TrainingCase,
    find_cases,
    group_of,
    prepare_case,
    read_labels,
)


@pytest.fixture(scope="module")
def case(cases: list[TrainingCase]) -> TrainingCase:
    return cases[0]


def test_prepared_case_keeps_every_tumour_voxel(
    phantoms: Path, case: TrainingCase, tmp_path: Path
) -> None:
    assert case.image.shape == (4, *case.label.shape)
    assert (
        np.bincount(case.label.ravel(), minlength=5)[1:].tolist()
        == np.bincount(read_labels(phantoms / "case1").ravel(), minlength=5)[1:].tolist()
    )
    brain = (case.image != 0).any(axis=0)
    assert brain[case.label > 0].mean() > 0.99, "labels are at the place of the image"
    assert abs(float(case.image[0][brain].astype(np.float64).mean())) < 0.01
    for _ in range(2):  # prepared, then from the cache
        again = prepare_case(phantoms / "case1", EngineSpec(), tmp_path)
        np.testing.assert_array_equal(again.image, case.image)


def test_carved_crops_depend_on_seed_and_number(case: TrainingCase) -> None:
    recipe = Recipe(
        stages=(StageConfig(steps=3, crop=(32, 32, 32)),), augment=AugmentConfig(carve_mix=1.0)
    )
    mixed, plain = (
        CropDataset([case, case], r) for r in (recipe, replace(recipe, augment=AugmentConfig()))
    )
    assert all(torch.equal(a, b) for a, b in zip(mixed[1][:2], mixed[1][:2], strict=True))
    assert not torch.equal(mixed[1][0], plain[1][0])


def test_rare_groups_have_more_turns(case: TrainingCase) -> None:
    recipe = replace(load_recipe("smoke"), turns={"LGG": 3})
    cases = [case, replace(case, label=np.full_like(case.label, 4), group="LGG")]
    n_low = sum(
        bool((CropDataset(cases, recipe)[i][1] == 4).float().mean() > 0.3) for i in range(8)
    )
    assert n_low == 6


def test_crops_depend_on_seed_and_number(case: TrainingCase) -> None:
    recipe = load_recipe("smoke")
    one, two = CropDataset([case], recipe), CropDataset([case], recipe)
    assert torch.equal(one[4][0], two[4][0])
    assert not torch.equal(one[4][0], one[5][0])


def test_batches_continue_where_a_run_stopped() -> None:
    recipe = load_recipe("smoke")  # 3 steps of 1 crop, 3 steps of 2 crops
    assert list(Batches(recipe)) == [[0], [1], [2], [3, 4], [5, 6], [7, 8]]
    assert list(Batches(recipe, 4)) == [[5, 6], [7, 8]]
    assert len(Batches(recipe, 4)) == 6


def test_endless_stages_have_batches(case: TrainingCase) -> None:
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
    assert group_of(tmp_path / "a") == "LGG", "the grade, without groups"


def test_splits(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    assert find_cases(tmp_path, "train") == [tmp_path / "a", tmp_path / "b"], "without cases.csv"
    (tmp_path / "cases.csv").write_text("case,split\na,train\nb,val\n")
    assert find_cases(tmp_path, "val") == [tmp_path / "b"]
    with pytest.raises(FastBTSError, match="no cases of split 'test'"):
        find_cases(tmp_path, "test")
