"""Figure of an evaluation: Dice and HD95 of every case, and a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastbts.scores.tables import Row, region_names
from training.scores.calibration import N_BINS, Histogram, expected_calibration_error, reliability


def write_figure(
    path: Path,
    title: str,
    rows: list[Row],
    histogram: Histogram,
    temperatures: Sequence[float],
) -> None:
    """Draws a PNG.

    Args:
        path: The file.
        title: Name of the engine.
        rows: One per case and region.
        histogram: Of logits at brain voxels, (K, 2, bins).
        temperatures: The engine's.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    n = len({row["case"] for row in rows})
    figure.suptitle(f"{title}, n = {n} cases")
    _points(left, "Dice", _by_region(rows, "dice"))
    left.set_ylim(0, 1)
    distances = _by_region(rows, "hd95_nonempty_mm")
    _points(middle, "HD95 in mm, where both masks are non-empty", distances)
    _diagram(right, region_names(rows), histogram, temperatures)
    figure.savefig(path, format="png")


def _by_region(rows: list[Row], score: str) -> dict[str, list[Any]]:
    return {r: [row[score] for row in rows if row["region"] == r] for r in region_names(rows)}


def _points(axes: Axes, title: str, values: dict[str, list[Any]]) -> None:
    """One dot per case, side by side, and a line at the mean."""
    for x, of_region in enumerate(values.values()):
        known = [value for value in of_region if value is not None]
        axes.plot(x + np.linspace(-0.2, 0.2, len(known)), known, "o", alpha=0.7)
        if known:
            axes.hlines(np.mean(known), x - 0.3, x + 0.3, "black")
    names = [
        f"{region}\nn = {sum(v is not None for v in of_region)}"
        for region, of_region in values.items()
    ]
    axes.set_xticks(range(len(values)), names)
    axes.set_title(title)


def _diagram(
    axes: Axes, regions: list[str], histogram: Histogram, temperatures: Sequence[float]
) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for region, of_region, temperature in zip(regions, histogram, temperatures, strict=True):
        confidence, share, _ = reliability(of_region, temperature)
        error = expected_calibration_error(of_region, temperature)
        axes.plot(confidence, share, "o-", label=f"{region}, ECE {error:.4f}")
    axes.set_title(f"reliability over {histogram[0].sum():.2g} brain voxels, {N_BINS} bins")
    axes.set_xlabel("mean probability")
    axes.set_ylabel("share of voxels in the region")
    axes.legend()
