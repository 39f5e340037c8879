"""Scores as tables on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fastbts.scores.tables import Row, mean_row

SHOWN = {
    "dice": "Dice",
    "hd95_mm": "HD95 mm, penalty",
    "hd95_nonempty_mm": "HD95 mm, non-empty",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "specificity": "specificity",
    "lesion_recognition": "lesion F1",
    "lesion_dice": "lesion Dice",
}
"""Score -> its name on the console."""


def dice_table(rows: list[Row], groups: Mapping[str, Row], title: str) -> Table:
    """Dice per case, then the means of each group and of all."""
    table = Table("case", *[k for k in rows[0] if k != "case"], title=title)
    means = [{"case": f"{group} (n={mean['n']})", **mean} for group, mean in groups.items()]
    for row in [*rows, *means, mean_row(rows)]:
        table.add_row(row["case"], *[f"{v:.4f}" for k, v in row.items() if k not in ("case", "n")])
    return table


def summary_table(means: Mapping[str, Mapping[str, Mapping[str, Any]]], n_cases: int) -> Table:
    """Mean over cases of every score, then the mean over regions; n if it is not all of them."""
    table = Table("score", *means, title=f"means over n = {n_cases} cases")
    expected = {region: len(means) - 1 if region == "mean" else n_cases for region in means}
    for name in (name for name in SHOWN if name in means["mean"]):
        table.add_row(
            SHOWN[name],
            *[_cell(scores[name], expected[region]) for region, scores in means.items()],
        )
    return table


def _cell(score: Mapping[str, Any], expected: int) -> str:
    if score["mean"] is None:
        return "-"
    return f"{score['mean']:.4g}" + (f" (n={score['n']})" if score["n"] != expected else "")
