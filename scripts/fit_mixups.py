"""Fits the tables of `fastbts/read/mixups.py` to labelled cases: `fit_mixups.py DATA`.

DATA holds cases and cases.csv (columns case, split, group). Prints the tables, fitted to the
training cases, and how many cases would be warned of and how many wrong orders found: on training
cases by leaving out one group after the other, and on validation cases.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fastbts.read import mixups
from fastbts.read.case import find_case, load_files
from fastbts.read.sample import Sample
from fastbts.volume import MODALITIES

DECAY = 0.03  # L2 penalty
SUBSETS = [s for n in (2, 3, 4) for s in combinations(range(4), n)]

Array = NDArray[np.float64]
Case = tuple[Array, Array]
"""Of `mixups.measures`."""


def measured(folder: Path) -> Case:
    """The measures of a case's four images."""
    volume = load_files(find_case(folder))
    sample = Sample.of(volume)
    return mixups.measures(sample.images[:, sample.core()])


def inputs(case: Case, images: Sequence[int]) -> Array:
    """Inputs of all assignments of some images, relative to those of the right one."""
    skewness, pairs = case
    some = list(images)
    roles = mixups.assignments(len(some))
    x = mixups.features(skewness[some], pairs[:, some][:, :, some], roles)
    return x - x[(roles == some).all(axis=1)]


def fit(cases: Sequence[Case]) -> Array:
    """Weights that make the right assignment likely, for every subset of two to four images."""
    groups = [
        np.stack([inputs(case, s) for case in cases for s in SUBSETS if len(s) == n])
        for n in (2, 3, 4)
    ]
    total = sum(len(x) for x in groups)

    def loss(w: Array) -> tuple[float, Array]:
        value, slope = 0.0, np.zeros_like(w)
        for x in groups:
            z = x @ w
            shifted = np.exp(z - z.max(axis=1, keepdims=True))
            share = shifted / shifted.sum(axis=1, keepdims=True)
            value += float((np.log(shifted.sum(axis=1)) + z.max(axis=1)).sum())
            slope += np.einsum("nk,nkd->d", share, x)
        return value / total + DECAY * float(w @ w) / 2, slope / total + DECAY * w

    start = np.zeros(groups[0].shape[2])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x).round(2)


def margins(cases: Sequence[Case], weights: Array, images: Sequence[int]) -> tuple[Array, Array]:
    """By how much other names win: for images in the right order, and in each wrong order."""
    scores = np.stack([inputs(case, images) @ weights for case in cases])
    right = (mixups.assignments(len(images)) == list(images)).all(axis=1)
    over = scores.max(axis=1, keepdims=True) - scores
    return over[:, right].ravel(), over[:, ~right].ravel()


def line(name: str, images: Sequence[int], right: Array, wrong: Array) -> str:
    """False alarms and wrong orders found at the margin in use."""
    margin = mixups.MARGIN[len(images)]
    names = ", ".join(MODALITIES[i] for i in images)
    return (
        f"{name} ({names}): {np.count_nonzero(right > margin)} false alarms of {len(right)}, "
        f"{np.count_nonzero(wrong > margin)} of {len(wrong)} wrong orders found; "
        f"highest right {right.max():.2f}, lowest wrong {wrong.min():.2f}"
    )


def main(data: Path) -> None:
    """Prints tables and figures."""
    with (data / "cases.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    cases = {row["case"]: measured(data / row["case"]) for row in rows}
    train = [row for row in rows if row["split"] == "train"]
    val = [cases[row["case"]] for row in rows if row["split"] != "train"]
    every = range(4)
    for group in dict.fromkeys(row["group"] for row in train):
        weights = fit([cases[row["case"]] for row in train if row["group"] != group])
        left = [cases[row["case"]] for row in train if row["group"] == group]
        print(line(f"left out {group}", every, *margins(left, weights, every)))
    weights = fit([cases[row["case"]] for row in train])
    for images in SUBSETS:
        print(line("validation", images, *margins(val, weights, images)))
        print(
            line("training", images, *margins([cases[r["case"]] for r in train], weights, images))
        )
    correlations = {name: float(pairs[0, 1, 2]) for name, (_, pairs) in cases.items()}
    print("T1 and T1ce correlate most in", sorted(correlations.items(), key=lambda x: -x[1])[:3])
    print("SKEWNESS =", weights[:4].tolist())
    print("PAIRS =", weights[4:].reshape(4, 4, 4).tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
