"""Focus against the whole brain: `python -m training focus --engine ENGINE --data DIR`.

For validation and training cases: how much of the reference's tumour is in the part that the finder
chose, how many voxels the network saw, Dice and time of both ways, measured in turns.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastbts import Segmentation, Segmenter, SegmenterOptions, Volume
from fastbts.metrics import region_dice
from fastbts.pipeline.focus import CUT_OFF
from fastbts.volume import to_network_axes
from training.data.cases import find_cases, group_of, read_images, read_labels

Row = dict[str, Any]
WAYS = ("whole", "focus")
COLUMNS = {
    "n": "cases",
    "recall": "tumour in the part",
    "lowest_recall": "the same, lowest",
    "voxels": "voxels seen",
    "dice_whole": "Dice, whole brain",
    "dice_focus": "Dice, focus",
    "worst_change": "worst change of Dice",
    "ms_whole": "ms, whole brain",
    "ms_focus": "ms, focus",
    "first_ms_whole": "ms in the first turn, whole brain",
    "first_ms_focus": "ms in the first turn, focus",
}
"""Key of a summary -> title of its row."""


def recall(result: Segmentation, reference: NDArray[np.uint8]) -> float | None:
    """Share of the reference's tumour (i, j, k) inside the part that the finder chose.

    None if there is no tumour, or the finder chose no part.
    """
    box = result.report["windows"]["focus"].get("box_zyx")
    tumour = np.isin(reference, sorted({v for region in result.regions.values() for v in region}))
    view = to_network_axes(tumour, result.volume.geometry)
    if box is None or not view.any():
        return None
    inside = view[tuple(slice(*side) for side in box)]
    return float(np.count_nonzero(inside) / np.count_nonzero(view))


def voxels(record: dict[str, Any]) -> float:
    """Voxels that the network saw, relative to the tensor of the whole brain."""
    if "whole_brain" not in record:
        return float(record["share"])
    return 1.0 + (record["share"] if record["whole_brain"] == CUT_OFF else 0.0)


def in_turns(
    segmenters: dict[str, Segmenter], images: Volume, rounds: int
) -> tuple[dict[str, Segmentation], dict[str, list[float]]]:
    """One case by all ways, in turns: the last result and the milliseconds of each."""
    times: dict[str, list[float]] = {way: [] for way in segmenters}
    results: dict[str, Segmentation] = {}
    for _ in range(rounds):
        for way, segmenter in segmenters.items():
            results[way] = segmenter.predict(images)
            times[way].append(results[way].timings_ms["total"])
    return results, times


def compared(segmenters: dict[str, Segmenter], folder: Path, rounds: int) -> Row:
    """One case by both ways, in turns."""
    spec = segmenters["whole"].spec
    images, reference = read_images(folder, spec.modalities), read_labels(folder, spec)
    results, times = in_turns(segmenters, images, rounds)
    focus = results["focus"]
    record, part = focus.report["windows"]["focus"], recall(focus, reference)
    dice = {
        way: region_dice(result.labels, reference, spec.region_labels)
        for way, result in results.items()
    }
    return {
        "case": folder.name,
        "group": group_of(folder),
        "recall": None if part is None else round(part, 5),
        "voxels": round(voxels(record), 4),
        "focus": record,
        "dice": {way: {r: round(v, 4) for r, v in d.items()} for way, d in dice.items()},
        "ms": {way: round(median(ms), 1) for way, ms in times.items()},
        "first_ms": {way: round(ms[0], 1) for way, ms in times.items()},
        "stages_ms": dict(focus.timings_ms),
    }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Means over cases, the worst ones, median times, and why the whole brain was done."""
    dice = {way: [fmean(row["dice"][way].values()) for row in rows] for way in WAYS}
    changes = [after - before for before, after in zip(*dice.values(), strict=True)]
    recalls = [row["recall"] for row in rows if row["recall"] is not None]
    reasons = Counter(row["focus"].get("whole_brain") for row in rows)
    return {
        "n": len(rows),
        "recall": round(fmean(recalls), 5) if recalls else None,
        "lowest_recall": min(recalls, default=None),
        "voxels": round(fmean(row["voxels"] for row in rows), 4),
        **{f"dice_{way}": round(fmean(dice[way]), 4) for way in WAYS},
        "worst_change": round(min(changes), 4),
        **{
            f"{key}_{way}": round(median(row[key][way] for row in rows), 1)
            for key in ("ms", "first_ms")
            for way in WAYS
        },
        "whole_brain": {reason: n for reason, n in reasons.items() if reason},
    }


def record(engine: Path, data: Path, rounds: int) -> dict[str, Any]:
    """Everything that was measured, as plain values for JSON."""
    segmenters = {
        way: Segmenter(engine, options=SegmenterOptions(focus=way == "focus")) for way in WAYS
    }
    rows = {
        split: [compared(segmenters, folder, rounds) for folder in track(folders, split)]
        for split, folders in ((s, find_cases(data, s)) for s in ("val", "train"))
    }
    about = segmenters["whole"].engine.description
    for segmenter in segmenters.values():
        segmenter.close()
    return {
        "engine": {"name": segmenters["whole"].spec.name, **about},
        "rounds": rounds,
        "summary": {split: summary(rows_of_split) for split, rows_of_split in rows.items()},
        "cases": rows,
    }


def show(scores: dict[str, Any]) -> None:
    """Prints the summaries as a table, and why whole brains were done."""
    console, splits = Console(), scores["summary"]
    table = Table("", *splits, title=f"Focus, {scores['engine']['name']}")
    for key, title in COLUMNS.items():
        table.add_row(
            title, *("-" if row[key] is None else str(row[key]) for row in splits.values())
        )
    console.print(table)
    for split, row in splits.items():
        for reason, n in row["whole_brain"].items():
            console.print(f"{split}: the whole brain in {n} of {row['n']}: {reason}")


def command(
    engine: Annotated[Path, typer.Option(help="engine file with a finder")],
    data: Annotated[Path, typer.Option(help="folder of labelled cases, with cases.csv")],
    rounds: Annotated[int, typer.Option(min=1, help="times that each case is done both ways")] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all figures to")
    ] = None,
) -> None:
    """Compare focus with the whole brain."""
    scores = record(engine, data, rounds)
    show(scores)
    if json_file:
        json_file.write_text(json.dumps(scores, indent=1) + "\n")
