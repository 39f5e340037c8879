"""The learning curve of runs: `python -m training learning RUN`.

Dice of the averaged network on validation cases by group, against the voxels that it was trained
on. The rate of such a run is constant; the shipped network comes from a decay that follows, or is a
mean of networks. The next run may start from that one (`--after`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from fastbts.errors import FastBTSError
from training.config import StageConfig, load_recipe


def record(run: Path, shipped: Path | None = None, after: Path | None = None) -> dict[str, Any]:
    """The points of a run, and of those before it, as JSON.

    Args:
        run: Folder of `training train`, with recipe.yaml and dice.jsonl.
        shipped: Scores by `training evaluate` of the network that was shipped from the run's end.
        after: Record of the runs before; the last network shipped from them was the start.
    Returns:
        "runs", the last one is `run`: "recipe"; "points", each with "gvoxel", 10^9 voxels from the
        start of the first run on; "shipped", the same for the shipped network.
    Raises:
        FastBTSError: The run was not validated.
    """
    recipe, log = load_recipe(run / "recipe.yaml"), run / "dice.jsonl"
    if not log.is_file():
        raise FastBTSError(f"{log}: missing; train with labelled validation cases")
    runs = json.loads(after.read_text())["runs"] if after else []
    begin = next((run["shipped"]["gvoxel"] for run in reversed(runs) if run["shipped"]), 0.0)
    points = [json.loads(line) for line in log.read_text().splitlines()]
    for point in points:
        point["gvoxel"] = round(begin + n_voxels(recipe.stages, point["step"]) / 1e9, 3)
    last = recipe.stages[-1]
    end = points[-1]["gvoxel"] + n_voxels([last], last.steps) / 1e9
    about = {"gvoxel": round(end, 3), **_group_dice(shipped)} if shipped else {}
    return {"runs": [*runs, {"recipe": recipe.name, "points": points, "shipped": about}]}


def n_voxels(stages: Sequence[StageConfig], steps: int) -> int:
    """Voxels of the crops of a run's first steps."""
    total = 0
    for stage in stages:
        n = min(stage.length, steps)
        total, steps = total + n * stage.batch * math.prod(stage.crop), steps - n
    return total


def draw(curve: dict[str, Any], path: Path) -> None:
    """Draws a PNG: one colour per group and one for the mean, stars for shipped networks."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes, runs = figure.subplots(), curve["runs"]
    groups = [n for n in runs[0]["points"][0] if n not in ("step", "gvoxel", "WT", "TC", "ET")]
    for i, group in enumerate(groups):
        for run in runs:
            label = group if run is runs[0] else None
            at = [point["gvoxel"] for point in run["points"]]
            dice = [point[group] for point in run["points"]]
            # Runs from one start lie over each other: the last one is dashed.
            line = "o--" if run is runs[-1] and not run["shipped"] else "o-"
            axes.plot(at, dice, line, color=f"C{i}", label=label)
            if group in run["shipped"]:
                axes.plot(run["shipped"]["gvoxel"], run["shipped"][group], f"C{i}*", markersize=12)
    axes.set_xlabel(f"10^9 voxels of training (recipe {runs[-1]['recipe']}; stars: shipped)")
    axes.set_ylabel("mean Dice of the validation cases")
    figure.legend(loc="outside upper center", ncols=5)
    figure.savefig(path, format="png")


def command(
    run: Annotated[Path, typer.Argument(help="folder of the run", metavar="RUN")],
    shipped: Annotated[
        Path | None, typer.Option(help="scores of the shipped network, by `evaluate --json`")
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(help="JSON of the runs before; their last shipped network was the start"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for the points")] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file for the curve")] = None,
) -> None:
    """Show how Dice grew with training."""
    curve = record(run, shipped, after)
    for point in curve["runs"][-1]["points"]:
        typer.echo("  ".join(f"{name} {value}" for name, value in point.items()))
    if json_file:
        json_file.write_text(json.dumps(curve, indent=1) + "\n")
    if figure:
        draw(curve, figure)


def _group_dice(scores: Path) -> dict[str, float]:
    about = json.loads(scores.read_text())
    groups = {group: row["mean"] for group, row in about["groups"].items()}
    return {**groups, "mean": about["mean"]["mean"]}
