"""Precisions compared: `python -m benchmarks.bench_precision --engine int8.fbts --data DIR`.

Runs float32, bf16 and int8 of one engine file in turn on each case, so that a change of the
machine's load affects all of them. Writes Dice, by case and by group, and times to
`benchmarks/results/precision.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fastbts import Segmenter, SegmenterOptions, read_case
from fastbts.build.cases import ListedCase, joined_groups, listed_cases
from fastbts.build.parity import changes_by_group
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.load import read_engine
from fastbts.metrics import region_dice
from training.data.cases import read_labels

PRECISIONS = ("fp32", "bf16", "int8")


def measure(
    segmenters: dict[str, Segmenter], cases: list[ListedCase], rounds: int
) -> list[dict[str, Any]]:
    """Per case and precision: Dice, and the median time of each stage over the rounds."""
    rows = []
    for case in cases:
        volume, reference = read_case(case.folder), read_labels(case.folder)
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
                    "case": case.folder.name,
                    "group": case.group,
                    "precision": precision,
                    "dice": region_dice(result.labels, reference),
                    "median_ms": times,
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per precision: mean Dice, its change from float32 in the mean and by group, median time, and
    speed relative to bf16."""
    found = {p: [r for r in rows if r["precision"] == p] for p in PRECISIONS}
    scores = {
        p: float(np.mean([list(r["dice"].values()) for r in mine])) for p, mine in found.items()
    }
    times = {p: median(r["median_ms"]["infer"] for r in mine) for p, mine in found.items()}
    return {
        p: {
            "mean_dice": round(scores[p], 4),
            "dice_change": round(scores[p] - scores["fp32"], 4),
            "groups": _groups(found["fp32"], found[p]),
            "infer_ms": times[p],
            "times_bf16": round(times["bf16"] / times[p], 3),
        }
        for p in PRECISIONS
    }


def _groups(exact: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    changes = [
        {region: row["dice"][region] - before["dice"][region] for region in row["dice"]}
        for before, row in zip(exact, rows, strict=True)
    ]
    return changes_by_group([row["group"] for row in rows], changes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled cases, with cases.csv"
    )
    parser.add_argument(
        "--engine", type=Path, required=True, help="engine file with an int8 network"
    )
    parser.add_argument("--split", choices=("val", "train"), default="val")
    parser.add_argument("--cases", type=int, default=0, help="number of cases; 0 for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--json", type=Path, default=Path(__file__).parent / "results/precision.json"
    )
    args = parser.parse_args()
    cases = joined_groups(listed_cases(args.data, args.split))[: args.cases or None]
    options = SegmenterOptions(mode="one-pass")
    segmenters = {
        p: Segmenter(args.engine, backend="openvino", precision=p, options=options)
        for p in PRECISIONS
    }
    rows = measure(segmenters, cases, args.rounds)
    auto = OpenVINOEngine.chosen(read_engine(args.engine))
    about = {"engine": segmenters["fp32"].engine.spec.name, **segmenters["int8"].engine.description}
    result = {
        **about,
        "precision": auto.name,
        "precision_reason": auto.reason,
        "split": args.split,
        "n_cases": len(cases),
        "rounds": args.rounds,
        "summary": summary(rows),
        "cases": rows,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
