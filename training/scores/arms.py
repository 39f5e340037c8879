"""Summary of an ablation: means of its arms, and each arm against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.scores.paired_statistics import compare


def summarise(
    runs: Sequence[dict[str, Any]], bases: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Means per arm, and each arm against its bases over the seeds that both have.

    Args:
        runs: Contents of result files of `training ablate`.
        bases: All arms, in the order of the result, and those that each is compared with.
    Returns:
        "arms": name -> n and mean Dice per region; "comparisons": see
        `training.scores.paired_statistics.compare`; both of the validation cases. "held_out": the
        same of training cases, by the seeds that did not train on them; only with folds.
    """
    summary = _summary(runs, bases, "scores")
    if any(run["held_out"] for run in runs):
        summary["held_out"] = _summary(runs, bases, "held_out")
    return summary


def _summary(
    runs: Sequence[dict[str, Any]], bases: Mapping[str, tuple[str, ...]], cases: str
) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    comparisons = []
    for name, compared in bases.items():
        of_arm = [run for run in runs if run["name"] == name]
        if of_arm:
            arms[name] = _means(of_arm, cases)
        for base in compared:
            differences = _differences(runs, name, base, cases)
            if differences.size:
                comparisons.append({"name": name, "base": base, **compare(differences)})
    return {"arms": arms, "comparisons": comparisons}


def _means(runs: Sequence[dict[str, Any]], cases: str) -> dict[str, Any]:
    """Row of one arm: its settings, and means over seeds and cases."""
    scores = [score for run in runs for score in run[cases]]
    means = {region: float(np.mean([s[region] for s in scores])) for region in ("WT", "TC", "ET")}
    counts = {key: runs[0][key] for key in ("n_cases", "n_synthetic", "steps")}
    seconds = float(np.mean([run["train_s"] for run in runs]))
    mean = sum(means.values()) / 3
    return {**counts, "train_s": seconds, "n_seeds": len(runs), **means, "mean": mean}


def _differences(
    runs: Sequence[dict[str, Any]], name: str, base: str, cases: str
) -> NDArray[np.float64]:
    """Difference of the Dice, mean of the regions, (n_cases, n_seeds).

    With folds a case is held out by some seeds only, so a column has the mean of those.
    """
    dice = {
        (run["name"], run["seed"], s["case"]): (s["WT"] + s["TC"] + s["ET"]) / 3
        for run in runs
        for s in run[cases]
    }
    by_case: dict[str, list[float]] = {}
    for (arm, seed, case), score in sorted(dice.items()):
        if arm == name and (base, seed, case) in dice:
            by_case.setdefault(case, []).append(score - dice[base, seed, case])
    if cases == "held_out":
        by_case = {case: [float(np.mean(values))] for case, values in by_case.items()}
    return np.array(list(by_case.values()))
