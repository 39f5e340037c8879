"""Dice against time of every way to run the engine, and of other engines, case by case in turns.

    python -m benchmarks.pareto DATA [--other NAME=FILE ...] [--rounds 3] [--json FILE]
                                [--figure PNG]

DATA has labelled cases; those of split `val` are segmented, from images in memory to labels. A way
is on the front if no other way has at least its Dice in less time. The machine must do nothing
else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.machine import machine
from fastbts import Segmenter, SegmenterOptions, __version__
from fastbts.engine.auto_precision import int8_parity
from fastbts.engine.finder import FINDER
from fastbts.engine.load import read_engine
from fastbts.metrics import region_dice
from training.data.cases import find_cases, group_of, read_images, read_labels
from training.focus import in_turns
from training.scores.groups import balanced_mean

Row = dict[str, Any]
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "int8": {"precision": "int8"},
    "bf16, two passes": {"precision": "bf16", "options": SegmenterOptions(passes=2)},
    "bf16, focus": {"precision": "bf16", "options": SegmenterOptions(focus=True)},
    "int8, focus": {"precision": "int8", "options": SegmenterOptions(focus=True)},
}
"""Ways to run the engine -> arguments of `Segmenter`."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    with ExitStack() as stack:
        segmenters = {
            name: stack.enter_context(segmenter)
            for name, segmenter in opened(given.engine, dict(given.other))
        }
        rows = [
            compared(segmenters, folder, given.rounds) for folder in find_cases(given.data, "val")
        ]
    summary = on_front({name: summed(name, rows) for name in segmenters})
    results = {
        "fastbts": __version__,
        "engine": segmenters["bf16"].engine.description,
        "rounds": given.rounds,
        "summary": summary,
        "cases": rows,
        "machine": machine(),
    }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    if given.figure:
        draw(summary, given.figure)
    print(json.dumps(summary, indent=1))


def opened(engine: Path | None, others: dict[str, Path]) -> Iterator[tuple[str, Segmenter]]:
    """A segmenter for each way that the engine has, and in bf16 for each other engine."""
    file = read_engine(engine)
    has = {"int8": int8_parity(file) is not None, "focus": FINDER in file.payloads}
    for name, way in WAYS.items():
        if all(is_there or part not in name for part, is_there in has.items()):
            yield name, Segmenter(engine, **way)
    for name, path in others.items():
        yield name, Segmenter(path, precision="bf16")


def compared(segmenters: dict[str, Segmenter], folder: Path, rounds: int) -> Row:
    """One case in all ways, in turns: Dice by region and median milliseconds of each."""
    spec = next(iter(segmenters.values())).spec
    images, reference = read_images(folder, spec.modalities), read_labels(folder, spec)
    results, times = in_turns(segmenters, images, rounds)
    dice = {
        name: region_dice(result.labels, reference, spec.region_labels)
        for name, result in results.items()
    }
    return {
        "case": folder.name,
        "group": group_of(folder),
        "dice": {name: {r: round(v, 4) for r, v in d.items()} for name, d in dice.items()},
        "ms": {name: round(median(ms), 1) for name, ms in times.items()},
    }


def summed(name: str, rows: list[Row]) -> Row:
    """Mean Dice and median time of one way over the cases."""
    means = [fmean(row["dice"][name].values()) for row in rows]
    balanced, error = balanced_mean(np.array(means), [row["group"] for row in rows])
    return {
        "n": len(rows),
        "dice": round(fmean(means), 4),
        "balanced": round(balanced, 4),
        "standard_error": round(error, 4) if np.isfinite(error) else None,
        "ms": median(row["ms"][name] for row in rows),
    }


def on_front(summary: dict[str, Row]) -> dict[str, Row]:
    """Marks the ways to which no other way is preferable, fastest first."""
    best, marked = -1.0, {}
    for name, row in sorted(summary.items(), key=lambda item: (item[1]["ms"], -item[1]["dice"])):
        marked[name] = {**row, "front": row["dice"] > best}
        best = max(best, row["dice"])
    return marked


def draw(summary: dict[str, Row], path: Path) -> None:
    """A PNG of all ways; a line joins those on the front."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    front = [(row["ms"], row["dice"]) for row in summary.values() if row["front"]]
    axes.plot(*zip(*front, strict=True), "-", color="C0", linewidth=1)
    for name, row in summary.items():
        point = row["ms"], row["dice"]
        axes.plot(*point, "o", color="C0" if row["front"] else "C7")
        axes.annotate(name, point, (5, -10), textcoords="offset points", fontsize=8)
    ends = [row["ms"] for row in summary.values()]
    axes.set(xscale="log")
    axes.set(xlabel="median ms of a case", ylabel="mean Dice of the validation cases")
    axes.set_xticks([n * 10**k for k in range(6) for n in (1, 2, 5)])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlim(min(ends) / 1.2, max(ends) * 1.6)  # after the ticks, which widen it
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of labelled cases, with cases.csv")
    parser.add_argument("--engine", type=Path, help="instead of the shipped engine")
    parser.add_argument("--other", type=named, action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way does a case")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--figure", type=Path, help="draw a PNG there")
    return parser.parse_args(arguments)


def named(text: str) -> tuple[str, Path]:
    """NAME=FILE, for argparse."""
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=FILE")
    return name, Path(path)


if __name__ == "__main__":
    main()
