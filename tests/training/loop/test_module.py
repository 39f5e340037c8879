"""What a step computes: learning rate, teacher's loss, the recipe's prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts.spec import REGIONS
from training.clip.prompts import Prompts, PromptsError, orthonormal_prompts, save_prompts
from training.config import load_recipe
from training.loop.module import TrainingModule, learning_rate, recipe_prompts


def test_learning_rate_by_hand() -> None:
    recipe = load_recipe("smoke")  # 2 steps of warm-up, 6 in all, the last stage from the fourth on
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in range(7)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 2 / 3, 1 / 3, 0])
    endless = replace(recipe, stages=(replace(recipe.stages[0], steps=0), recipe.stages[1]))
    assert {learning_rate(endless, step) for step in (2, 1000, 1_000_000)} == {recipe.learning_rate}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_teacher_adds_its_loss() -> None:
    recipe = load_recipe("smoke-clip")
    recipe = replace(
        recipe,
        model=replace(recipe.model, semantic=replace(recipe.model.semantic, teacher_width=5)),
    )
    module = TrainingModule(recipe)
    image, label = torch.randn(1, 4, 32, 32, 32), torch.randint(0, 3, (1, 32, 32, 32))
    without, taught = (
        module.training_step([image, label], 0),
        module.training_step([image, label, torch.ones(1, 3, 5)], 0),
    )
    assert 0 < abs((taught - without).item()) <= 2 * recipe.bridge_weight


def test_prompts_follow_the_recipe(tmp_path: Path) -> None:
    assert recipe_prompts(load_recipe("smoke")) is None
    recipe = replace(load_recipe("smoke-clip"), prompts=str(tmp_path / "prompts.npz"))
    mine = Prompts(REGIONS, ((),) * 3, np.eye(3, 16, dtype=np.float32), "mine")
    save_prompts(tmp_path / "prompts.npz", mine)
    assert np.array_equal(
        TrainingModule(recipe).network.get_buffer("text").numpy(), mine.embeddings
    )
    save_prompts(tmp_path / "prompts.npz", orthonormal_prompts(REGIONS, width=8))
    with pytest.raises(PromptsError, match=r"expected \(3, 16\)"):
        recipe_prompts(recipe)


@pytest.mark.parametrize("labels", [("ET", "TC", "WT"), ("WT", "TC"), ("wt", "tc", "et")])
def test_prompts_of_other_regions_or_in_another_order_are_refused(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "prompts.npz"
    save_prompts(path, orthonormal_prompts(labels, width=16))
    message = (
        rf"prompts\.npz: one row each for {', '.join(labels)}, expected WT, TC, ET in this order"
    )
    advice = (
        r"give training/clip/prompts\.yaml this order and make .* with python -m training prompts"
    )
    with pytest.raises(PromptsError, match=f"{message}; {advice}"):
        recipe_prompts(replace(load_recipe("smoke-clip"), prompts=str(path)))
