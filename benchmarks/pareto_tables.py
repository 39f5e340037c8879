"""Table of `benchmarks.pareto`."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def pareto_table(results: dict[str, Any]) -> str:
    """Dice and time of every way to run the engine, and of other engines."""
    summary, machine = results["summary"], results["machine"]
    reference = summary["bf16"]["ms"]
    rows = [
        (
            name,
            "yes" if row["front"] else "",
            f"{row['dice']:.4f}",
            "-" if row["standard_error"] is None else f"{row['balanced']:.4f}",
            f"{row['ms']:.0f}",
            f"{reference / row['ms']:.2f}",
        )
        for name, row in summary.items()
    ]
    return table(
        (
            "way",
            "on the front",
            "Dice",
            "mean of the groups",
            "median ms",
            "speed relative to bf16",
        ),
        rows,
        f"{summary['bf16']['n']} validation cases, medians of {results['rounds']} turns a case, "
        f"from images in memory to labels, on {machine['n_cpus']} cores of {machine['cpu']}. On "
        "the front: no other way has at least this Dice in less time. "
        "(`benchmarks/results/pareto.json`)",
    )


TABLES = {"pareto": (pareto_table, "pareto.json")}
