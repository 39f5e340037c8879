"""Dice against time of all ways to run an engine, on two tiny cases."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from benchmarks import pareto
from benchmarks.pareto_tables import pareto_table
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case, write_case


@pytest.mark.slow
def test_every_way_is_scored_and_timed(tmp_path: Path) -> None:
    data, file, picture = tmp_path / "cases", tmp_path / "pareto.json", tmp_path / "pareto.png"
    for seed in range(2):
        write_case(make_case(seed, shape=(48, 48, 32)), data / f"case{seed}")
    (data / "cases.csv").write_text("case,split,group\ncase0,val,HGG\ncase1,val,LGG\n")
    other = f"again={default_engine_path()}"
    given = [data, "--rounds", 1, "--other", other, "--json", file, "--figure", picture]
    pareto.main([str(argument) for argument in given])
    results = json.loads(file.read_text())
    summary = results["summary"]
    assert {"fp32", "bf16", "bf16, two passes", "bf16, focus", "again"} <= summary.keys()
    assert summary["again"]["dice"] == summary["bf16"]["dice"]
    assert [row["case"] for row in results["cases"]] == ["case0", "case1"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    bf16 = summary["bf16"]
    row = f"| {bf16['dice']:.4f} | {bf16['balanced']:.4f} | {bf16['ms']:.0f} | 1.00 |"
    assert row in pareto_table(results)


def test_the_front_has_the_fastest_way_and_each_that_gains() -> None:
    ways = {"slow": (0.9, 30.0), "worse": (0.7, 20.0), "fast": (0.8, 10.0), "equal": (0.8, 11.0)}
    marked = pareto.on_front({name: {"dice": d, "ms": ms} for name, (d, ms) in ways.items()})
    assert {name: row["front"] for name, row in marked.items()} == {
        **{"fast": True, "equal": False},
        **{"worse": False, "slow": True},
    }


def test_another_engine_needs_a_name() -> None:
    assert pareto.named("plain=a/b.fbts") == ("plain", Path("a/b.fbts"))
    with pytest.raises(ArgumentTypeError, match="expected NAME=FILE"):
        pareto.named("a/b.fbts")
