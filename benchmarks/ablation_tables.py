"""Tables of an ablation: what each arm reached, and how far it is from others."""

from __future__ import annotations

from typing import Any

from benchmarks.accuracy_tables import REGIONS
from benchmarks.markdown import table

ARM_NAMES = {"all": "all, orthonormal text"}  # arms that need a longer name than in the results


def validation_table(results: dict[str, Any]) -> str:
    """Dice of the validation cases, which no arm learns."""
    return _table(results, "validation cases; compared over the seeds that both networks have.")


def held_out_table(results: dict[str, Any]) -> str:
    """Dice of the training cases that a seed leaves out; empty for an ablation without folds."""
    if "held_out" not in results:
        return ""
    return _table(
        results["held_out"],
        "training cases, those that the seeds of both networks leave out, each scored by the "
        "networks of the seed that did not learn it.",
    )


def _table(summary: dict[str, Any], cases: str) -> str:
    """Each arm compared with others: difference of the mean Dice in points, interval and p."""
    rows: list[tuple[str, ...]] = []
    for name, arm in summary["arms"].items():
        against = [_comparison(c) for c in summary["comparisons"] if c["name"] == name]
        first, *others = against or [("", "", "")]
        settings = (ARM_NAMES.get(name, name), str(arm["steps"]), str(arm["n_seeds"]))
        rows.append((*settings, *_dice(arm), *first))
        rows += [("",) * 7 + other for other in others]
    counts = {comparison["n_cases"] for comparison in summary["comparisons"]} or {0}
    n = " or ".join(map(str, sorted(counts, reverse=True)))
    return table(
        ("network", "steps", "seeds", *REGIONS, "against", "points, 95 % interval", "p"),
        rows,
        f"n = {n} {cases} Interval: bootstrap over cases and seeds. p: exact Wilcoxon "
        "signed-rank test over case means, not corrected for the number of rows; the smallest "
        f"possible p is {2 ** (1 - max(counts)):.2g}.",
    )


def _comparison(comparison: dict[str, Any]) -> tuple[str, str, str]:
    points = [f"{100 * comparison[key]:+.1f}" for key in ("difference", "low", "high")]
    base = ARM_NAMES.get(comparison["base"], comparison["base"])
    return base, f"{points[0]} [{points[1]}, {points[2]}]", f"{comparison['p']:.3f}"


def _dice(arm: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{arm[r]:.3f}" for r in REGIONS)
