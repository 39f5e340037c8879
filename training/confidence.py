"""The confidence of results against their true Dice: `python -m training confidence --data DIR`.

For validation and training cases: Spearman's rank correlation per region. From the training cases
it proposes the limits below which `fastbts.pipeline.confidence` calls a result doubtful; the
network has seen them, so the validation cases tell how good the limits are. Healthy brains are made
of cases whose tumour is in one half of the head: the other half is mirrored onto it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import spearmanr

from fastbts import Segmenter, Volume, read_case
from fastbts.metrics import region_dice
from fastbts.pipeline.confidence import DOUBTFUL
from fastbts.volume import to_network_axes
from training.data.cases import find_cases, group_of, read_images, read_labels

GOOD_DICE = 0.8
FLAGGED_GOOD = 0.05  # share of the good training cases that a limit may flag
LIMITS = tuple(round(0.05 * i, 2) for i in range(20))
MAX_TUMOUR_ML = 2.0  # in the half of the head that becomes a healthy brain

Row = dict[str, Any]


def scored(segmenter: Segmenter, folders: list[Path], title: str) -> list[Row]:
    """Confidence and true Dice of each case."""
    rows, spec = [], segmenter.spec
    for folder in track(folders, title):
        result = segmenter.predict(read_images(folder, spec.modalities))
        dice = region_dice(result.labels, read_labels(folder, spec), spec.region_labels)
        rows.append(
            {
                "case": folder.name,
                "group": group_of(folder),
                "confidence": dict(result.confidence),
                "dice": {region: round(value, 4) for region, value in dice.items()},
            }
        )
    return rows


def rank_correlation(rows: list[Row]) -> dict[str, float | None]:
    """Spearman's rank correlation of confidence and Dice per region; None if one is constant."""
    correlations: dict[str, float | None] = {}
    for region in rows[0]["dice"]:
        columns = _columns(rows, region)
        varied = all(len(np.unique(column)) > 1 for column in columns)
        correlations[region] = round(float(spearmanr(*columns).statistic), 3) if varied else None
    return correlations


def limits(rows: list[Row]) -> dict[str, float]:
    """Per region the highest limit that flags at most one in 20 cases of good Dice."""
    chosen = {}
    for region in rows[0]["dice"]:
        confidence, dice = _columns(rows, region)
        good = confidence[dice >= GOOD_DICE]
        allowed = int(FLAGGED_GOOD * len(good))
        chosen[region] = max(x for x in LIMITS if np.count_nonzero(good < x) <= allowed)
    return chosen


def flagged(rows: list[Row], limit: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Per region: cases below the limit, how many of them are good, and both mean Dices."""
    record = {}
    for region in rows[0]["dice"]:
        confidence, dice = _columns(rows, region)
        low = confidence < limit[region]
        record[region] = {
            "flagged": int(low.sum()),
            "of": len(rows),
            "flagged_good": int((low & (dice >= GOOD_DICE)).sum()),
            "mean_dice_flagged": _mean(dice[low]),
            "mean_dice_others": _mean(dice[~low]),
        }
    return record


def healthy_brains(folders: Iterable[Path]) -> Iterator[tuple[str, Volume]]:
    """Brains without tumour: a half of the head that has none, and its mirror image."""
    for folder in folders:
        volume, labels = read_case(folder), read_labels(folder)
        for side in (0, 1):
            healthy, tumour_ml = mirrored_half(volume, labels, side)
            if tumour_ml <= MAX_TUMOUR_ML:
                yield f"{folder.name}, {('left', 'right')[side]} half", healthy


def mirrored_half(volume: Volume, labels: NDArray[np.uint8], side: int) -> tuple[Volume, float]:
    """One half of the head and its mirror image; the tumour in that half, in ml.

    Args:
        volume: A case.
        labels: Its reference, (i, j, k).
        side: 0 for the patient's left half, 1 for the right.
    """
    view = to_network_axes(volume.data, volume.geometry)
    columns = np.flatnonzero(view.any(axis=(0, 1, 2)))
    x = np.arange(view.shape[3])
    mirror = columns[0] + columns[-1] - x
    kept = (x < mirror) if side == 0 else (x > mirror)
    target = ~kept & (mirror >= 0) & (mirror < len(x))
    data = volume.data.copy(order="K")
    to_network_axes(data, volume.geometry)[..., target] = view[..., mirror[target]]
    tumour = to_network_axes(labels, volume.geometry)[..., kept] > 0
    return replace(volume, data=data), np.count_nonzero(tumour) * volume.geometry.voxel_ml


def record(segmenter: Segmenter, data: Path) -> dict[str, Any]:
    """Everything that was measured, as plain values for JSON."""
    rows = {s: scored(segmenter, find_cases(data, s), s) for s in ("val", "train")}
    limit = limits(rows["train"])
    healthy = []
    for name, volume in healthy_brains(track(find_cases(data, "val"), "healthy")):
        result = segmenter.predict(volume)
        doubtful = any("doubtful" in warning for warning in result.warnings)
        healthy.append(
            {
                "case": name,
                "confidence": dict(result.confidence),
                "volumes_ml": {r: round(v, 3) for r, v in result.volumes_ml.items()},
                "doubtful": doubtful,
            }
        )
    return {
        "engine": {"name": segmenter.spec.name, **segmenter.engine.description},
        "rule": f"highest limit that flags at most {FLAGGED_GOOD:.0%} of the training cases with "
        f"a Dice of at least {GOOD_DICE}",
        "limits": limit,
        "spearman": {s: rank_correlation(r) for s, r in rows.items()},
        "flagged": {s: flagged(r, limit) for s, r in rows.items()},
        "healthy": healthy,
        "cases": rows,
    }


def show(scores: dict[str, Any]) -> None:
    """Prints correlations, limits and healthy brains."""
    console = Console()
    for split, correlation in scores["spearman"].items():
        n = len(scores["cases"][split])
        console.print(f"{split} (n={n}): Spearman's rank correlation {correlation}")
        console.print(f"  flagged: {scores['flagged'][split]}")
    n_doubtful = sum(row["doubtful"] for row in scores["healthy"])
    console.print(f"healthy brains called doubtful: {n_doubtful} of {len(scores['healthy'])}")
    console.print(f"limits by these cases {scores['limits']}, in use {DOUBTFUL}")
    if scores["limits"] != DOUBTFUL:
        console.print("change DOUBTFUL in fastbts/pipeline/confidence.py to the limits, run again")


def command(
    data: Annotated[Path, typer.Option(help="folder of labelled cases, with cases.csv")],
    engine: Annotated[
        Path | None, typer.Option(help="engine file; default: the shipped engine")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, or one that the engine has")] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all figures to")
    ] = None,
) -> None:
    """Check the confidence of an engine's results and propose its limits."""
    scores = record(Segmenter(engine, precision=precision), data)
    show(scores)
    if json_file:
        json_file.write_text(json.dumps(scores, indent=1) + "\n")


def _columns(rows: list[Row], region: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    confidence, dice = (np.array([r[key][region] for r in rows]) for key in ("confidence", "dice"))
    return confidence, dice


def _mean(values: NDArray[np.float64]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
