"""Tables of the network's layers and of its variants."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table


def layers_table(results: dict[str, Any]) -> str:
    """Where the network's time goes, by kind of layer, from `benchmarks.layers`."""
    rows = [
        (
            precision if i == 0 else "",
            kind,
            f"{row['ms']:.1f}",
            f"{row['share']:.0%}",
            f"{row['gflops']:.0f}" if row["gflop"] >= 0.1 else "",
            f"{row['share_of_peak']:.0%}" if row["gflop"] >= 0.1 else "",
            f"{row['gb_per_s']:.1f}",
        )
        for precision, found in results["precisions"].items()
        for i, (kind, row) in enumerate(found["kinds"].items())
    ]
    peaks = ", ".join(
        f"{precision} {max(found['peak'].values()):.0f}"
        for precision, found in results["precisions"].items()
    )
    d, h, w = results["shape"]
    return table(
        ("precision", "layers", "ms", "share", "GFLOP/s", "of the peak", "GB/s"),
        rows,
        f"{d} x {h} x {w} voxels, OpenVINO {results['cpu'].partition(':')[0]}; medians of "
        f"{results['rounds']} runs. Peak in GFLOP/s, measured in the same run by a large "
        f"convolution and matrix product in OpenVINO: {peaks}. A copy moves "
        f"{results['copy_gb_per_s']} GB/s. `python -m benchmarks.layers` repeats it.",
    )


def variants_table(results: dict[str, Any]) -> str:
    """Time of untrained variants of the network, from `benchmarks.variants`."""
    names = list(next(iter(results["ms"].values())))
    first = next(iter(results["ms"].values()))
    rows = [
        (name, *(f"{ms[p]:.0f} ({ms[p] / first[p] - 1:+.0%})" for p in names))
        for name, ms in results["ms"].items()
    ]
    return table(
        ("network", *(f"{name}, ms" for name in names)),
        rows,
        f"OpenVINO {results['cpu'].partition(':')[0]}; medians of {results['rounds']} rounds in "
        "turns. The weights are untrained; `python -m benchmarks.variants` repeats it.",
    )
