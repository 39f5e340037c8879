"""Checkpoints: written atomically, the previous one kept, loaded without pickled code."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from fastbts import FastBTSError
from training.config import Recipe, parse_recipe, with_last_stage


class CheckpointError(FastBTSError, ValueError):
    """A checkpoint that cannot be used."""


def save_checkpoint(path: Path, recipe: Recipe, step: int, **state: Any) -> None:
    """Writes state dicts and the recipe; the old file at `path` becomes `<name>.previous`.

    After the first save there is a complete file at `path` at any moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, previous = path.with_suffix(".tmp"), path.with_suffix(".previous")
    torch.save({"recipe": dataclasses.asdict(recipe), "step": step, **state}, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if path.exists():
        previous.unlink(missing_ok=True)
        os.link(
            path, previous
        )  # a second name: the file stays at `path` until the new one is there
    temporary.replace(path)


def averaged_weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The averaged network's state dict, from a checkpoint's state."""
    return {
        name.removeprefix("module."): weight
        for name, weight in state["average"].items()
        if name != "n_averaged"
    }


def begin_decay(source: Path, run: Path, steps: int = 0) -> Recipe:
    """Begins a run that trains the last stage of another run, which does not change.

    Args:
        source: Checkpoint of the other run, at constant rate.
        run: Folder of the new run; if it has a checkpoint, that is continued.
        steps: Length of the last stage; 0 for that of the recipe.
    Returns:
        The recipe of the new run.
    Raises:
        RecipeError: `source` is already in its last stage.
    """
    target = run / "last.ckpt"
    if target.is_file():
        return load_checkpoint(target)[0]
    recipe, state = load_checkpoint(source)
    recipe = with_last_stage(recipe, state["step"], steps)
    save_checkpoint(target, recipe, state.pop("step"), **state)
    return recipe


def load_checkpoint(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Reads a checkpoint; returns its recipe and its state.

    Raises:
        CheckpointError: It is damaged, or has something else than numbers and names.
        RecipeError: Its recipe cannot be used.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        recipe = state.pop("recipe")
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: not a complete checkpoint of training train: {error}; the one before is "
            f"{path.stem}.previous: rename it, or begin a new run"
        ) from error
    return parse_recipe(recipe, str(path)), state
