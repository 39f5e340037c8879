"""Checkpoints: written whole or not at all, the previous one kept, loaded without pickled code."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from training.config import Recipe, parse_recipe


def save_checkpoint(path: Path, recipe: Recipe, step: int, **state: Any) -> None:
    """Writes state dicts and the recipe; the former file at `path` becomes `<name>.previous`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({"recipe": dataclasses.asdict(recipe), "step": step, **state}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    if path.exists():
        path.replace(path.with_suffix(".previous"))
    temporary.replace(path)


def load_checkpoint(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Reads a checkpoint; returns the recipe it was made with and the state."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return parse_recipe(state.pop("recipe"), str(path)), state
