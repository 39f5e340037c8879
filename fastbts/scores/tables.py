"""Tables of scores: rows per case and region, means, CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

Row = dict[str, Any]
"""One case and region: "case", "region", and scores, None where undefined."""


def score_names(rows: list[Row]) -> list[str]:
    """Names of the scores in the rows."""
    return [name for name in rows[0] if name not in ("case", "region")]


def region_names(rows: list[Row]) -> list[str]:
    """Names of the regions in the rows."""
    return list(dict.fromkeys(row["region"] for row in rows))


def dice_rows(rows: list[Row]) -> list[Row]:
    """One row per case: its name, Dice of each region, and their mean."""
    cases: dict[str, Row] = {row["case"]: {"case": row["case"]} for row in rows}
    for row in rows:
        cases[row["case"]][row["region"]] = row["dice"]
    regions = region_names(rows)
    return [{**case, "mean": fmean(case[name] for name in regions)} for case in cases.values()]


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
    """Means over the cases where a score is defined.

    Returns:
        Region -> score -> {"mean", "n"}; then "mean": the means over regions, n the number of
        regions. A mean of no values is None.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for region in region_names(rows):
        of_region = [row for row in rows if row["region"] == region]
        table[region] = {
            name: _mean([row[name] for row in of_region]) for name in score_names(rows)
        }
    table["mean"] = {
        name: _mean([table[region][name]["mean"] for region in region_names(rows)])
        for name in score_names(rows)
    }
    return table


def write_csv(path: Path, rows: list[Row]) -> None:
    """Writes one line per case and region; undefined scores are empty."""
    with path.open("w", newline="") as file:
        write_rows(file, rows)


def write_rows(file: TextIO, rows: list[Row]) -> None:
    """Writes the lines of `write_csv` into an open file."""
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


def _mean(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"mean": fmean(known) if known else None, "n": len(known)}
