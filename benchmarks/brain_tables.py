"""Tables of brain masks, for `benchmarks.make_tables`."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def brain_heads_table(results: dict[str, Any]) -> str:
    """Brain masks of raw images: Dice with HD-BET's, and time."""
    columns = {"image": "", "dice": ".3f", "s": ".2f", "processor_s": ".2f"}
    rows = [row for row in results["heads"] if "dice" in row]
    return table(("image", "Dice", "median s", "processor s"), _cells(rows, columns))


def brain_peer_table(results: list[dict[str, Any]]) -> str:
    """The same of another program, from `benchmarks.brain_peers`."""
    rows = [row for row in results if "dice" in row]
    columns = {"image": "", "dice": ".3f", "cpu_s": ".1f"}
    return table(("image", "Dice", "processor s"), _cells(rows, columns))


def brain_cases_table(results: dict[str, Any]) -> str:
    """Brain masks of cases in made-up heads, by one image or by all four."""
    names = ("dice", "lowest dice", "tumour_lost_percent", "largest loss")
    return table(
        ("image", "mean Dice", "lowest Dice", "tumour lost, mean %", "largest %"),
        _cells(results["means"], {"image": "", **dict.fromkeys(names, ".3f")}),
        f"n = {results['means'][0]['n']} cases. `all`: the median of the logits of the four images.",
    )


def _cells(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[list[str]]:
    """Columns of rows, each by its format."""
    return [[format(row[name], form) for name, form in columns.items()] for row in rows]


TABLES = {
    "brain-heads": (brain_heads_table, "brain.json"),
    "brain-cases": (brain_cases_table, "brain.json"),
    "brain-deepbet": (brain_peer_table, "brain-deepbet.json"),
}
