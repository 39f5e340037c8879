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
from training.data.cases import engine_spec
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
        image = torch.randn(1, model.n_modalities, *size)
        assert network(image).shape == (1, model.n_regions, *size)


def test_full_is_the_classical_network() -> None:
    model = load_recipe("full").model
    assert (model.patch, model.widths, model.stride) == (1, (32, 64, 128, 256, 320), 16)
    assert all(
        getattr(model.semantic, name)
        for name in ("fusion", "bridge", "guidance", "attention", "head")
    )


def test_defaults_are_a_recipe() -> None:
    assert parse_recipe({}) == Recipe()


def test_a_recipe_may_have_other_images_and_regions() -> None:
    values = {
        "modalities": ["adc", "t2"],
        "regions": {"lesion": [1, 2], "core": [2], "cavity": [3], "all": [1, 2, 3]},
        "model": {"n_modalities": 2, "n_regions": 4},
    }
    recipe = parse_recipe(values)
    assert recipe.regions["all"] == (1, 2, 3)
    spec = engine_spec(recipe)
    assert not spec.is_glioma
    assert engine_spec(Recipe()).is_glioma
    assert engine_spec(Recipe()).window == Recipe().stages[-1].crop
    assert engine_spec(load_recipe("steady")).window == (144, 176, 144)
    turned = parse_recipe({"regions": {"ET": [4], "TC": [1, 4], "WT": [1, 2, 4]}})
    assert not engine_spec(turned).is_glioma
    assert spec.labels == ((1, 2), (2,), (3,), (1, 2, 3))
    assert (spec.modalities, spec.regions) == (("adc", "t2"), ("lesion", "core", "cavity", "all"))
    assert spec.thresholds == (0.5,) * 4
    assert parse_recipe(dataclasses.asdict(recipe)) == recipe, "survives the checkpoint"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modalities": ["t1", "t1", "t1ce", "t2"]}, "modalities: .* different names"),
        ({"modalities": [*"abcdefghi"]}, "expected 1 to 8 different names"),
        ({"modalities": ["t1"]}, "model.n_modalities: 4, expected 1 as in the recipe"),
        ({"regions": {"a": [1]}}, "model.n_regions: 3, expected 1 as in the recipe"),
        ({"regions": {"WT": [], "TC": [1], "ET": [4]}}, r"expected name: \[labels\]"),
        ({"regions": {"WT": [0], "TC": [1], "ET": [4]}}, "labels from 1 to 255"),
        ({"source": "files"}, "source: expected one of cases, heads, got 'files'"),
        ({"threshold": 1.0}, "threshold: 1.0, expected a number between 0 and 1"),
        ({"percentiles": [99.0, 1.0]}, "two ascending numbers"),
        ({"spacing_mm": 0}, "a positive one"),
        (
            {"modalities": [*"abcd"], "augment": {"low_grade": 0.1}},
            "augment.low_grade: needs the modalities and regions of glioma",
        ),
    ],
)
def test_impossible_tasks_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(values)


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
    with pytest.raises(RecipeError, match=r"window: \(48, 0, 48\) is not 3 multiples of the net"):
        parse_recipe({"window": [48, 0, 48]})
    small = r"\(48, 16, 48\) is not 3 multiples of the network's stride 16, 32 or more"
    with pytest.raises(RecipeError, match=f"window: {small}"):
        parse_recipe({"window": [48, 16, 48]})
    with pytest.raises(RecipeError, match=rf"stages\.0\.crop: {small}"):
        parse_recipe({"stages": [{"steps": 1, "crop": [48, 16, 48]}]})
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
