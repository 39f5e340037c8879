"""The figures of docs/how-to/cohorts.md are those of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_figures_are_measured() -> None:
    results = json.loads((ROOT / "benchmarks/results/cohort.json").read_text())
    text = (ROOT / "docs/how-to/cohorts.md").read_text()
    columns = ("seconds", "first_case_s", "cases_per_minute", "cases_per_minute_after_the_first")
    for name, way in results["ways"].items():
        row = f"| {name} | {' | '.join(str(way[column]) for column in columns)} |"
        assert row in text, row
    assert f"{results['n_cases']} synthetic cases" in text
    assert f"Ray {results['ray']}" in text
