"""The table of focus, from the results of `training focus`."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table

SPLITS = {"val": "validation", "train": "training"}


def focus_table(results: dict[str, Any]) -> str:
    """Focus against the whole brain: recall, voxels, Dice and time."""
    engine = results["engine"]
    device = engine.get("device_name", engine["device"])
    return table(
        (
            *("cases", "n", "tumour in the part, mean (lowest)", "voxels seen"),
            *("Dice, whole brain", "Dice, focus", "worst case", "whole brain done"),
            *("median s, whole brain", "median s, focus", "times faster"),
        ),
        [_row(SPLITS[split], row) for split, row in results["summary"].items()],
        f"{engine['name']} in {engine['precision']} on {device}, both ways in {results['rounds']} "
        "turns per case, from images in memory to labels; in brackets the first turn, in which a "
        "network sees a tensor of a new size. Voxels: of the whole brain's tensor, "
        "where the whole brain was done after the part both. Dice: mean of the regions and cases. "
        "Worst case: lowest change of a case's Dice. The finder has seen the training cases. "
        "(`benchmarks/results/focus.json`)",
    )


def _row(title: str, row: dict[str, Any]) -> tuple[str, ...]:
    ways = ("whole", "focus")
    seconds, first = ([row[f"{key}_{way}"] / 1000 for way in ways] for key in ("ms", "first_ms"))
    share, lowest = row["recall"], row["lowest_recall"]
    return (
        title,
        str(row["n"]),
        "-" if share is None else f"{share:.2%} ({lowest:.2%})",
        f"{row['voxels']:.0%}",
        f"{row['dice_whole']:.4f}",
        f"{row['dice_focus']:.4f}",
        f"{row['worst_change']:+.4f}",
        str(sum(row["whole_brain"].values())),
        *(f"{usual:.3f} ({new:.3f})" for usual, new in zip(seconds, first, strict=True)),
        f"{seconds[0] / seconds[1]:.2f}",
    )


TABLES = {"focus": (focus_table, "focus.json")}
