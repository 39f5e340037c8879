"""Tables of `benchmarks.threads`."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def batch_table(results: dict[str, Any]) -> str:
    """Ways to segment many cases, from `benchmarks.threads`."""
    rows = results["batch"]
    n = results["n_cases"]
    cells = [
        (
            f"`{row['way']}`",
            f"{row['median_s']:.2f}",
            f"{row['times_faster']:.2f}",
            f"{row['peak_mb']}",
            f"{row['voxels_that_differ']}",
        )
        for row in rows
    ]
    return table(
        ("way", "median s", "times faster", "peak MB", "voxels that differ"),
        cells,
        f"{n} {results['kind']} cases in {results['engine']['precision']}, medians of "
        f"{len(rows[0]['seconds'])} interleaved rounds. Voxels whose label differs from the first "
        f"way's, in all cases. {_on_machine(results)}",
    )


def threads_table(results: dict[str, Any]) -> str:
    """Stages of a case by the number of CPUs, from `benchmarks.threads`."""
    rows = results["scaling"]
    stages = list(rows[0]["stages_ms"])
    cells = [
        (str(row["cpus"]), *(f"{row['stages_ms'][stage]:.0f}" for stage in stages)) for row in rows
    ]
    return table(
        ("CPUs", *(f"{stage} ms" for stage in stages)),
        cells,
        f"Medians of {rows[0]['n_runs']} runs. {_on_machine(results)} More CPUs than these were "
        "not at hand.",
    )


def _on_machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    busy = max(row["others_cpus"] for row in (*results["scaling"], *results["batch"]))
    return (
        f"Measured on {machine['n_cpus']} cores of {machine['cpu']}, of which other processes took "
        f"{busy} at most."
    )


TABLES = {"batch": batch_table, "threads": threads_table}
