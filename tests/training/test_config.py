import dataclasses
from pathlib import Path

import pytest

from training.config import RECIPES, Recipe, RecipeError, load_recipe, parse_recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.steps > 0
    assert parse_recipe(dataclasses.asdict(recipe)) == recipe, "survives the checkpoint"


def test_defaults_are_a_recipe() -> None:
    assert parse_recipe({}) == Recipe()


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = {"sed": 1, "learning_rate": "fast", "augment": {"affine": True}, "stages": [{"crop": [30, 32, 32]}], "model": 3}
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


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"known recipes: .*light.*smoke"):
        load_recipe("huge")
