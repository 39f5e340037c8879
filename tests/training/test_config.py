import dataclasses
from pathlib import Path

import pytest
import torch

from training.config import (
    ENDLESS,
    RECIPES,
    Recipe,
    RecipeError,
    StageConfig,
    load_recipe,
    model_config,
    parse_recipe,
    with_last_stage,
)
from training.model import UNet3d


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.steps > 0
    assert parse_recipe(dataclasses.asdict(recipe)) == recipe, "survives the checkpoint"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_has_a_network_that_runs(path: Path) -> None:
    model = load_recipe(path).model
    network = UNet3d(model).eval()
    size = (2 * model.stride,) * 3
    with torch.inference_mode():
        assert network(torch.randn(1, 4, *size)).shape == (1, 3, *size)


def test_full_is_the_classical_network() -> None:
    model = load_recipe("full").model
    assert (model.patch, model.widths, model.stride) == (1, (32, 64, 128, 256, 320), 16)
    assert all(
        getattr(model.semantic, name)
        for name in ("fusion", "bridge", "guidance", "attention", "head")
    )


def test_defaults_are_a_recipe() -> None:
    assert parse_recipe({}) == Recipe()


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = {
        "sed": 1,
        "learning_rate": "fast",
        "augment": {"affine": True},
        "stages": [{"crop": [30, 32, 32]}],
        "model": 3,
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(wrong, "mine.yaml")
    for part in (
        "mine.yaml",
        "sed: unknown field",
        "learning_rate: expected float",
        "augment.affine: expected float",
        "model: expected",
    ):
        assert part in str(caught.value)
    with pytest.raises(RecipeError, match=r"stages\.0\.crop: \(30, 32, 32\) is not 3 multiples"):
        parse_recipe({"stages": [{"crop": [30, 32, 32]}]})
    with pytest.raises(RecipeError, match="turns: expected a mapping, got 3"):
        parse_recipe({"turns": 3})
    with pytest.raises(
        RecipeError, match=r"model\.norm: expected one of instance, batch, frozen, got 'layer'"
    ):
        parse_recipe({"model": {"norm": "layer"}})
    with pytest.raises(
        RecipeError,
        match=r"stages\.1\.steps: 0, expected at least 1; 0 \(no limit\) only in the stage before",
    ):
        parse_recipe({"stages": [{}, {"steps": 0}]})
    with pytest.raises(RecipeError, match=r"engine\.fbts: model\.n_layers: unknown field"):
        model_config({"n_layers": 3}, "engine.fbts")
    with pytest.raises(
        RecipeError, match="precision: expected one of bf16-mixed, 16-mixed, 32-true, got 'bf16'"
    ):
        parse_recipe({"precision": "bf16"})


def test_an_endless_recipe_ends_where_it_is_told_to() -> None:
    size = (32, 32, 32)
    first, endless, last = StageConfig(10, size), StageConfig(0, size), StageConfig(8, size)
    recipe = Recipe(stages=(first, endless, last))
    assert recipe.steps == 18 + ENDLESS
    assert with_last_stage(recipe, 25).stages == (first, StageConfig(15, size), last)
    assert with_last_stage(recipe, 25, 3).stages == (
        first,
        StageConfig(15, size),
        StageConfig(3, size),
    )
    assert with_last_stage(recipe, 4).stages == (StageConfig(4, size), last)
    with pytest.raises(RecipeError, match="step 33: expected a step at constant rate, 1 to 25"):
        with_last_stage(with_last_stage(recipe, 25), 33)


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"known recipes: .*light.*smoke"):
        load_recipe("huge")
