"""Checkpoints: written whole or not at all, the previous one kept, loaded without pickled code."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastbts import FastBTSError
from training.config import Recipe, parse_recipe


class CheckpointError(FastBTSError, ValueError):
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
        os.link(
            path, previous
        )  # a second name: the file stays at `path` until the new one is there
    temporary.replace(path)


def averaged_weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The averaged network's state dict, out of a checkpoint's state."""
    return {
        name.removeprefix("module."): weight
        for name, weight in state["average"].items()
        if name != "n_averaged"
    }


def begin_from(network: nn.Module, path: Path) -> None:
    """Gives a fresh network the averaged weights of a finished run; what that run's network did not have stays fresh.

    Raises:
        CheckpointError: The run's network has weights that this one has not, or of another shape.
    """
    weights, own = averaged_weights(load_checkpoint(path)[1]), network.state_dict()
    strange = [
        name
        for name, weight in weights.items()
        if name not in own or own[name].shape != weight.shape
    ]
    if strange:
        raise CheckpointError(
            f"{path}: weights that the recipe's network has not, or not of this shape: {', '.join(strange)}"
        )
    network.load_state_dict(own | weights)


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
