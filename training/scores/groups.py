"""Means over groups of cases that count the same, however many cases each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pooled(groups: Sequence[str]) -> list[str]:
    """Each case's group; a group of one case is counted with the largest group.

    Its mean would have no standard error.
    """
    counts = Counter(groups)
    (largest, _), *_ = counts.most_common()
    return [group if counts[group] > 1 else largest for group in groups]


def balanced_mean(values: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float]:
    """Mean of the means of the groups, and its standard error.

    Args:
        values: One per case, (n,).
        groups: The cases' groups; see `pooled`.
    Returns:
        The error is infinite if a group has one case.
    """
    names = np.array(pooled(groups))
    parts = [values[names == name] for name in dict.fromkeys(names)]
    if min(map(len, parts)) < 2:
        return float(np.mean([part.mean() for part in parts])), float("inf")
    variance = sum(part.var(ddof=1) / len(part) for part in parts)
    return float(np.mean([part.mean() for part in parts])), float(np.sqrt(variance)) / len(parts)
