"""Writes the README's tables from `benchmarks/results/*.json`, between their markers: `python -m benchmarks.make_tables`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"


def speed_table(results: dict[str, Any]) -> str:
    """Median seconds per job, with the Dice of what was computed."""
    machine = results["machine_info"]
    lines = ["| job | precision | median s | normalize / infer / label ms | Dice WT, TC, ET |", "|---|---|---|---|---|"]
    for run in results["benchmarks"]:
        job = re.sub(r"^test_|\[.*", "", run["name"]).replace("_", " ")
        info, stages = run["extra_info"], run["extra_info"].get("stages_ms", {})
        parts = " / ".join(f"{stages[s]:.0f}" for s in ("normalize", "infer", "label")) if stages else ""
        dice = ", ".join(f"{v:.3f}" for v in info.get("dice", {}).values())
        where = f", {'synthetic' if info['case'] == 'case' else info['case']}" if "case" in info else ""
        lines.append(f"| {job}{where} | {info.get('precision', '')} | {run['stats']['median']:.2f} | {parts} | {dice} |")
    about = f"{machine['device_name']}, {results['benchmarks'][0]['extra_info'].get('threads', '?')} threads"
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {about}; `make bench` repeats it (`benchmarks/results/predict.json`). The Dice of the synthetic case says nothing about accuracy.",
        ]
    )


def dice_table(results: dict[str, Any]) -> str:
    """Dice per case and mean."""
    regions = ("WT", "TC", "ET", "mean")
    lines = ["| case | " + " | ".join(regions) + " |", "|---" * (1 + len(regions)) + "|"]
    for row in [*results["cases"], results["mean"]]:
        lines.append(f"| {row['case']} | " + " | ".join(f"{row[r]:.3f}" for r in regions) + " |")
    return "\n".join(lines)


TABLES = {"speed": (speed_table, "predict.json"), "dice": (dice_table, "dice-val.json")}


def filled(text: str) -> str:
    """The text with every `<!-- table:NAME -->...<!-- end -->` filled in."""
    for name, (make, file) in TABLES.items():
        table = make(json.loads((RESULTS / file).read_text()))
        text = re.sub(
            rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )  # type: ignore[misc]
    return text


def main() -> None:
    """Rewrites the README and the model card; with --check only compares."""
    for path in (ROOT / "README.md", ROOT / "models/fastbts-light.md"):
        text = path.read_text()
        if filled(text) == text:
            continue
        if "--check" in sys.argv:
            sys.exit(f"{path.name}: tables are not those of benchmarks/results; run python -m benchmarks.make_tables")
        path.write_text(filled(text))


if __name__ == "__main__":
    main()
