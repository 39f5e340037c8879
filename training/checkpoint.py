"""Checkpoints: written whole or not at all, the previous one kept, loaded without pickled code."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from training.config import Recipe, parse_recipe


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


def save_checkpoint(path: Path, recipe: Recipe, step: int, **state: Any) -> None:
    """Writes state dicts and the recipe; the former file at `path` becomes `<name>.previous`.

    There is a whole file at `path` at any moment after the first save.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, previous = path.with_suffix(".tmp"), path.with_suffix(".previous")
    torch.save({"recipe": dataclasses.asdict(recipe), "step": step, **state}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    if path.exists():
        previous.unlink(missing_ok=True)
        os.link(path, previous)  # a second name: the file stays at `path` until the new one is there
    temporary.replace(path)


def load_checkpoint(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Reads a checkpoint; returns the recipe it was made with and the state.

    Raises:
        CheckpointError: It is damaged, or holds something else than numbers and names.
        RecipeError: Its recipe cannot be used.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        recipe = state.pop("recipe")
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: not a whole checkpoint of training.train: {error}; the one before is {path.stem}.previous: "
            "rename it, or begin a new run"
        ) from error
    return parse_recipe(recipe, str(path)), state
