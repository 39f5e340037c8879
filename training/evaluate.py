"""Dice of an engine on labelled cases: `python -m training.evaluate --data DIR`.

Runs `fastbts.Segmenter` itself, files in, labels on the original grid out; so it measures what a user gets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastbts import Segmenter, SegmenterOptions, read_case
from training.data import find_cases, read_labels
from training.metrics import region_dice


def evaluate(segmenter: Segmenter, folders: list[Path]) -> list[dict[str, Any]]:
    """Segments each case; returns per case its name, Dice per region and their mean."""
    rows = []
    for folder in track(folders, "evaluating"):
        result = segmenter.predict(read_case(folder))
        scores = region_dice(result.labels, read_labels(folder))
        rows.append({"case": folder.name, **scores, "mean": sum(scores.values()) / len(scores)})
    return rows


def mean_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over cases of every score."""
    return {"case": f"mean (n={len(rows)})", **{k: sum(r[k] for r in rows) / len(rows) for k in rows[0] if k != "case"}}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, help="engine file; default: the shipped engine")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled cases, with cases.csv")
    parser.add_argument("--split", default="val")
    parser.add_argument("--mode", default="auto", help="auto, one-pass or sliding")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or f32")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    args = parser.parse_args()
    segmenter = Segmenter(args.engine, precision=args.precision, options=SegmenterOptions(mode=args.mode))
    rows = evaluate(segmenter, find_cases(args.data, args.split))
    table = Table("case", *[k for k in rows[0] if k != "case"], title=f"Dice, {segmenter.engine.spec.name}, {args.mode}")
    for row in [*rows, mean_row(rows)]:
        table.add_row(row["case"], *[f"{v:.4f}" for k, v in row.items() if k != "case"])
    Console().print(table)
    if args.json:
        about = {"engine": segmenter.engine.spec.name, **segmenter.engine.description, "mode": args.mode, "split": args.split}
        args.json.write_text(json.dumps({**about, "cases": rows, "mean": mean_row(rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
