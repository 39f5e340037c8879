"""Mean of networks: `python -m training average A.ckpt B.fbts --out MEAN.ckpt`.

Networks that were trained on from a common start lie close together, and the mean of their weights
is often better on new cases than each of them (model soups, Wortsman et al. 2022, arXiv
2203.05482). It costs nothing when the network runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fastbts import OptionsError
from training.loop.checkpoint import load_checkpoint, save_checkpoint
from training.loop.module import TrainingModule
from training.start import begin_from


def average(paths: Sequence[Path], out: Path) -> None:
    """Writes a checkpoint with the mean of the weights and statistics, for `training export`.

    Args:
        paths: Checkpoints, whose averages are used, or engine files. Recipe and step are those of
            the first one, a checkpoint.
        out: The checkpoint. It cannot be continued.
    Raises:
        CheckpointError, RecipeError: See `begin_from` and `load_checkpoint`.
    """
    recipe, state = load_checkpoint(paths[0])
    modules = [TrainingModule(recipe) for _ in paths]
    for module, path in zip(modules, paths, strict=True):
        begin_from(module.network, path)
    weights = mean([module.network.state_dict() for module in modules])
    average = {f"module.{name}": weight for name, weight in weights.items()}
    kept = {key: state[key] for key in ("prompts", "teacher") if key in state}
    save_checkpoint(
        out, recipe, state["step"], average={**average, "n_averaged": torch.tensor(1)}, **kept
    )


def mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of state dicts with equal names and shapes; counters are those of the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def command(
    networks: Annotated[
        list[Path], typer.Argument(help="checkpoints or engine files; first a checkpoint")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="checkpoint to write")],
) -> None:
    """Write the mean of networks with a common start."""
    if len(networks) < 2 or networks[0].suffix == ".fbts":
        raise OptionsError(
            f"average: {', '.join(map(str, networks))}: expected two networks or more, first a "
            "checkpoint, whose recipe the mean gets"
        )
    average(networks, out)
    typer.echo(f"wrote the mean of {len(networks)}; next: python -m training export {out}")
