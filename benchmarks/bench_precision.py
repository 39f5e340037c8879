"""Precisions compared: `python -m benchmarks.bench_precision --data DIR`.

Builds an int8 engine from training cases, then runs float32, bf16 and int8 in turn on each
validation case, so that a change of the machine's load affects all of them. Writes Dice and times
to `benchmarks/results/precision.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fastbts import Segmenter, SegmenterOptions, read_case
from fastbts.build.engine import build_engine
from fastbts.engine.load import default_engine_path
from fastbts.metrics import region_dice
from training.data.cases import find_cases, read_labels

PRECISIONS = ("fp32", "bf16", "int8")


def measure(
    segmenters: dict[str, Segmenter], folders: list[Path], rounds: int
) -> list[dict[str, Any]]:
    """Per case and precision: Dice, and the median time of each stage over the rounds."""
    rows = []
    for folder in folders:
        volume, reference = read_case(folder), read_labels(folder)
        first = {p: s.predict(volume) for p, s in segmenters.items()}  # also the warm-up
        runs = [
            {p: s.predict(volume).timings_ms for p, s in segmenters.items()} for _ in range(rounds)
        ]
        for precision, result in first.items():
            times = {
                stage: round(median(run[precision][stage] for run in runs), 1)
                for stage in ("infer", "total")
            }
            rows.append(
                {
                    "case": folder.name,
                    "precision": precision,
                    "dice": region_dice(result.labels, reference),
                    "median_ms": times,
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per precision: mean Dice, its change from float32, median time, speed relative to bf16."""
    found = {p: [r for r in rows if r["precision"] == p] for p in PRECISIONS}
    scores = {
        p: float(np.mean([list(r["dice"].values()) for r in mine])) for p, mine in found.items()
    }
    times = {p: median(r["median_ms"]["infer"] for r in mine) for p, mine in found.items()}
    return {
        p: {
            "mean_dice": round(scores[p], 4),
            "dice_change": round(scores[p] - scores["fp32"], 4),
            "infer_ms": times[p],
            "times_bf16": round(times["bf16"] / times[p], 3),
        }
        for p in PRECISIONS
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled cases, with cases.csv"
    )
    parser.add_argument("--engine", type=Path, default=default_engine_path())
    parser.add_argument(
        "--calibrate", type=int, default=8, help="number of training cases to calibrate int8 on"
    )
    parser.add_argument(
        "--cases", type=int, default=0, help="number of validation cases; 0 for all"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--json", type=Path, default=Path(__file__).parent / "results/precision.json"
    )
    args = parser.parse_args()
    folders = find_cases(args.data, "val")[: args.cases or None]
    with tempfile.TemporaryDirectory() as work:
        small = Path(work) / "int8.fbts"
        build = build_engine(
            args.engine,
            small,
            precision="int8",
            calibrate=find_cases(args.data, "train")[: args.calibrate],
        )
        options = SegmenterOptions(mode="one-pass")
        files = {"fp32": args.engine, "bf16": args.engine, "int8": small}
        segmenters = {p: Segmenter(files[p], precision=p, options=options) for p in PRECISIONS}
        rows = measure(segmenters, folders, args.rounds)
    about = {"engine": segmenters["fp32"].engine.spec.name, **segmenters["int8"].engine.description}
    result = {
        **about,
        "build": build,
        "n_cases": len(folders),
        "rounds": args.rounds,
        "summary": summary(rows),
        "cases": rows,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
