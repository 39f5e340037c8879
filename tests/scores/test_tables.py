"""Means and CSV of a table of two cases."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from fastbts.labels import REGION_LABELS
from fastbts.scores.tables import dice_rows, group_means, mean_row, summary, write_csv


def rows() -> list[dict[str, Any]]:
    table = {"a": (0.9, 0.8, 0.7, 1.0), "b": (0.5, 0.4, 0.3, None)}
    return [
        {"case": case, "region": region, "dice": dice, "hd95_nonempty_mm": distance}
        for case, (*of_regions, distance) in table.items()
        for region, dice in zip(REGION_LABELS, of_regions, strict=True)
    ]


def test_means_by_hand() -> None:
    wide = dice_rows(rows())
    assert wide[0] == {"case": "a", "WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": pytest.approx(0.8)}
    assert mean_row(wide) == {
        "case": "mean (n=2)",
        **{k: pytest.approx(v) for k, v in {"WT": 0.7, "TC": 0.6, "ET": 0.5, "mean": 0.6}.items()},
    }
    three = [*wide, {**wide[0], "case": "c", "WT": 0.1}]
    assert group_means(three, {"a": "HGG", "b": "", "c": "HGG"}) == {
        "HGG": {"n": 2, "WT": pytest.approx(0.5), "TC": 0.8, "ET": 0.7, "mean": pytest.approx(0.8)}
    }
    means = summary(rows())
    assert means["WT"] == {
        "dice": {"mean": pytest.approx(0.7), "n": 2},
        "hd95_nonempty_mm": {"mean": 1.0, "n": 1},
    }
    assert means["mean"]["dice"] == {"mean": pytest.approx(0.6), "n": 3}
    undefined = summary([{**row, "hd95_nonempty_mm": None} for row in rows()])
    assert (
        undefined["WT"]["hd95_nonempty_mm"]
        == undefined["mean"]["hd95_nonempty_mm"]
        == {"mean": None, "n": 0}
    )


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", rows())
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    assert lines[4] == {"case": "b", "region": "TC", "dice": "0.4", "hd95_nonempty_mm": ""}
