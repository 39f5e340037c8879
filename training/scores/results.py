"""Scores of many cases: means, and the files they are written to."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from fastbts.labels import REGION_LABELS

Row = dict[str, Any]
"""One case and region: "case", "region", and scores that may be None where they are undefined."""


def score_names(rows: list[Row]) -> list[str]:
    """The scores that the rows hold."""
    return [name for name in rows[0] if name not in ("case", "region")]


def dice_rows(rows: list[Row]) -> list[Row]:
    """One row per case: its name, Dice of WT, TC and ET, and their mean."""
    cases: dict[str, Row] = {row["case"]: {"case": row["case"]} for row in rows}
    for row in rows:
        cases[row["case"]][row["region"]] = row["dice"]
    return [
        {**case, "mean": fmean(case[region] for region in REGION_LABELS)} for case in cases.values()
    ]


def mean_row(rows: list[Row]) -> Row:
    """Mean over cases of every score of `dice_rows`."""
    return {
        "case": f"mean (n={len(rows)})",
        **{k: fmean(row[k] for row in rows) for k in rows[0] if k != "case"},
    }


def group_means(rows: list[Row], groups: Mapping[str, str]) -> dict[str, Row]:
    """Group -> "n" and the means of `dice_rows` over its cases.

    Args:
        rows: Of `dice_rows`.
        groups: Case -> group; cases of group "" are left out.
    """
    means = {}
    for group in sorted({groups[row["case"]] for row in rows} - {""}):
        mean = mean_row([row for row in rows if groups[row["case"]] == group])
        means[group] = {"n": sum(groups[row["case"]] == group for row in rows), **mean}
        del means[group]["case"]
    return means


def summary(rows: list[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """Region -> score -> {"mean", "n"}: over the cases where it is defined; then "mean", over regions, of these means.

    A mean of nothing is None. `n` under "mean" is the number of regions.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for region in REGION_LABELS:
        of_region = [row for row in rows if row["region"] == region]
        table[region] = {
            name: _mean([row[name] for row in of_region]) for name in score_names(rows)
        }
    table["mean"] = {
        name: _mean([table[region][name]["mean"] for region in REGION_LABELS])
        for name in score_names(rows)
    }
    return table


def write_csv(path: Path, rows: list[Row]) -> None:
    """One line per case and region; what is undefined stays empty."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _mean(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"mean": fmean(known) if known else None, "n": len(known)}
