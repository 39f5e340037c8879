"""Paired comparison of two networks on the same cases and seeds: interval of the mean difference, and a test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def wilcoxon_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact, by counting the signs that give each rank sum.

    Zeros are left out, ties share their mean rank (Wilcoxon 1945, doi:10.2307/3001968). With n differences no p is below
    2 / 2^n: 0.031 for 6.

    Args:
        differences: (n,), one per case.
    """
    values = np.round(differences, 12)
    values = values[values != 0]
    _, where, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(counts) - counts + 1)[where]  # twice the mean rank is a whole number
    ways = np.zeros(
        int(doubled.sum()) + 1
    )  # sum of the ranks of positive differences -> number of signs that give it
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[: len(ways) - rank].copy()
    smaller = int(min(doubled[values > 0].sum(), doubled[values < 0].sum()))
    return float(min(1.0, 2 * ways[: smaller + 1].sum() / ways.sum()))


def bootstrap_interval(
    differences: NDArray[np.float64], n_draws: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over cases and seeds, both drawn anew with replacement; equal inputs, equal results.

    Args:
        differences: (n_cases, n_seeds).
        n_draws: Resamples.
        level: Coverage.
    """
    rng = np.random.default_rng(0)
    n_cases, n_seeds = differences.shape
    cases = rng.integers(n_cases, size=(n_draws, n_cases, 1))
    seeds = rng.integers(n_seeds, size=(n_draws, 1, n_seeds))
    low, high = np.quantile(
        differences[cases, seeds].mean(axis=(1, 2)), [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def compare(differences: NDArray[np.float64]) -> dict[str, Any]:
    """Mean difference, its interval, the p over case means and both n, for differences (n_cases, n_seeds)."""
    low, high = bootstrap_interval(differences)
    return {
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "p": wilcoxon_p(differences.mean(axis=1)),
        "n_cases": differences.shape[0],
        "n_seeds": differences.shape[1],
    }
