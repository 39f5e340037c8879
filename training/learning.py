"""The learning curve of a run: `python -m training learning RUN`.

Dice of the averaged network on validation cases by group, against the voxels that it was trained
on. The rate of such a run is constant; the shipped network comes from a decay that follows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from fastbts.errors import FastBTSError
from training.config import load_recipe


def record(run: Path, decayed: Path | None = None) -> dict[str, Any]:
    """The points of a run as JSON.

    Args:
        run: Folder of `training train`, with recipe.yaml and dice.jsonl.
        decayed: Scores by `training evaluate` of the network that was decayed from the run's end.
    Raises:
        FastBTSError: The run was not validated.
    """
    recipe, log = load_recipe(run / "recipe.yaml"), run / "dice.jsonl"
    if not log.is_file():
        raise FastBTSError(f"{log}: missing; train with labelled validation cases")
    depth, height, width = recipe.stages[0].crop
    return {
        "recipe": recipe.name,
        "voxels_per_step": recipe.stages[0].batch * depth * height * width,
        "points": [json.loads(line) for line in log.read_text().splitlines()],
        "decay_steps": recipe.stages[-1].steps,
        "decayed": _group_dice(decayed) if decayed else {},
    }


def draw(curve: dict[str, Any], path: Path) -> None:
    """Draws a PNG: one line per group and one for the mean, stars for the decayed network."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes, points = figure.subplots(), curve["points"]
    gvoxel = curve["voxels_per_step"] / 1e9
    end = (points[-1]["step"] + curve["decay_steps"]) * gvoxel
    for group in [name for name in points[0] if name not in ("step", "WT", "TC", "ET")]:
        (line,) = axes.plot(
            [point["step"] * gvoxel for point in points],
            [point[group] for point in points],
            "o-",
            label=group,
        )
        if group in curve["decayed"]:
            axes.plot(end, curve["decayed"][group], "*", color=line.get_color(), markersize=12)
    axes.set_xlabel(f"voxels of training, in 10^9 (recipe {curve['recipe']}; stars: after decay)")
    axes.set_ylabel("mean Dice of the validation cases")
    figure.legend(loc="outside upper center", ncols=5)
    figure.savefig(path, format="png")


def command(
    run: Annotated[Path, typer.Argument(help="folder of the run", metavar="RUN")],
    decayed: Annotated[
        Path | None, typer.Option(help="scores of the decayed network, by `evaluate --json`")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for the points")] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file for the curve")] = None,
) -> None:
    """Show how Dice grew with training."""
    curve = record(run, decayed)
    for point in curve["points"]:
        typer.echo("  ".join(f"{name} {value}" for name, value in point.items()))
    if json_file:
        json_file.write_text(json.dumps(curve, indent=1) + "\n")
    if figure:
        draw(curve, figure)


def _group_dice(scores: Path) -> dict[str, float]:
    about = json.loads(scores.read_text())
    groups = {group: row["mean"] for group, row in about["groups"].items()}
    return {**groups, "mean": about["mean"]["mean"]}
