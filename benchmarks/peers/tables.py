"""Tables and plots of `benchmarks/bench_peers.py`, for `benchmarks.make_tables`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.markdown import table
from benchmarks.peers.fit import exponent
from benchmarks.peers.registry import CONTENDERS
from fastbts import SegmenterOptions
from fastbts.pipeline.window import WindowPlan, fitted_size
from fastbts.spec import EngineSpec

Entry = dict[str, Any]
"""The `extra_info` of one benchmark."""
Row = dict[str, Any]
MISSING = "Not measured yet."
TIMES = (
    'Each program ran in turns with fastbts. "times fastbts" compares with fastbts in the same '
    "turns, so it is not exactly the quotient of two rows."
)


def sections(results: dict[str, Any], name: str) -> list[Entry]:
    """What was measured of a section."""
    entries = [run["extra_info"] for run in results["benchmarks"]]
    return [entry for entry in entries if entry.get("section") == name]


def memory_table(results: dict[str, Any]) -> str:
    """In memory: each contender, ours first, and how many times longer than fastbts it takes."""
    entries = sections(results, "in memory")
    if not entries:
        return MISSING
    columns = ("in memory", "median s", "p95", "times fastbts", "processor s", *MORE)
    rows = [
        (case, *([""] * (len(columns) - 1))) if cells is None else cells
        for case in dict.fromkeys(entry["case"] for entry in entries)
        for cells in [None, *_memory_rows([e for e in entries if e["case"] == case])]
    ]
    ran = {name: row for entry in entries for name, row in entry["contenders"].items()}
    n_rounds = sorted({len(row["seconds"]) for row in ran.values() if "seconds" in row})
    note = f"Medians of {' or '.join(map(str, n_rounds))} rounds. {TIMES}"
    return table(columns, rows, f"{note} {_where(results, entries[0])} {_around(ran)}")


SHORT = (
    *("fastbts, default", "OpenVINO and NumPy, bf16", "ONNX Runtime and NumPy, fp32"),
    *("torch and NumPy, bf16", "MONAI, one window, bf16", "MONAI, windows, bf16"),
    *("nnU-Net, fp32", "nnU-Net's predictor, whole image, fp32"),
)


def short_table(results: dict[str, Any]) -> str:
    """For the README: one case, some contenders, without what the whole table explains."""
    entries = sections(results, "in memory")
    if not entries:
        return MISSING
    first = [entry for entry in entries if entry["case"] == entries[0]["case"]]
    columns = ("same network and images", "median s", "times fastbts", "Dice WT, TC, ET", "peak MB")
    rows = [
        (name, seconds, times, dice, megabytes)
        for name, seconds, _, times, _, dice, _, megabytes, *_ in _memory_rows(first)
        if name in SHORT
    ]
    return table(columns, rows, f"{entries[0]['case']}. {TIMES} {_where(results, entries[0])}")


MORE = ("Dice WT, TC, ET", "same labels as fp32", "peak MB", "prepare / network / label ms")


def _memory_rows(entries: list[Entry]) -> list[tuple[str, ...]]:
    """Of one case; a contender of several groups is shown as in the first, ours as in its own."""
    rows: dict[str, tuple[str, ...]] = {}
    for entry in sorted(entries, key=lambda entry: entry["group"] != "ours"):
        ours = entry["contenders"]["ours"]["median_s"]
        for name, row in entry["contenders"].items():
            if name not in rows:
                rows[name] = _memory_row(row, row.get("median_s", 0) / ours)
    return [rows[name] for name in CONTENDERS if name in rows]


def _memory_row(row: Row, ratio: float) -> tuple[str, ...]:
    if "skipped" in row:
        return row["title"], "-", "", "", "", "", "", "", row["skipped"][:60]
    return (
        row["title"],
        f"{row['median_s']:.3g}",
        f"{row['p95_s']:.3g}",
        f"{ratio:.2f}",
        f"{row['processor_s']:.3g}",
        ", ".join(f"{value:.3f}" for value in row["dice"].values()),
        f"{row['agreement']:.2%}",
        str(row["peak_mb"]),
        _stages(row.get("stages_ms", {})),
    )


def _stages(ms: dict[str, float]) -> str:
    """Before, in and after the network."""
    before = sum(ms.get(name, 0.0) for name in ("read", "normalize", "prepare"))
    inside = sum(ms.get(name, 0.0) for name in ("infer", "window", "blend", "network"))
    return f"{before:.0f} / {inside:.0f} / {ms.get('label', 0.0):.0f}" if ms else ""


def process_table(results: dict[str, Any]) -> str:
    """New processes, and several cases in one."""
    shown = ("new process", "files to file", "several cases")
    found = [_times(sections(results, name)) for name in shown]
    titles = {name: title for times in found for name, (title, *_) in times.items()}
    if not titles:
        return MISSING
    rows = [
        (title, *(cell for times in found for cell in times.get(name, ("", "-", ""))[1:]))
        for name, title in titles.items()
    ]
    columns = (
        *("", "arrays to labels, new process, s", "times"),
        *("files to file, new process, s", "times"),
        *("files to file, per case of several, s", "times"),
    )
    entry = next(entry for name in shown for entry in sections(results, name))
    where = f"{entry['case']}. {TIMES} {_where(results, entry)}"
    return table(columns, rows, f"{where} {_first_calls(results)}")


def _times(entries: list[Entry]) -> dict[str, tuple[str, str, str]]:
    """Name -> title, seconds per case, and how many times those of fastbts next to it.

    fastbts was measured next to each: the median is shown.
    """
    found: dict[str, tuple[str, str, str]] = {}
    whole = median([entry["contenders"]["ours"]["median_s"] for entry in entries] or [0])
    for entry in entries:
        ours = entry["contenders"]["ours"]["median_s"]
        for name, row in entry["contenders"].items():
            if name not in found and "median_s" in row:
                seconds = (whole if name == "ours" else row["median_s"]) / entry.get("n_cases", 1)
                found[name] = row["title"], f"{seconds:.2f}", f"{row['median_s'] / ours:.1f}"
    return found


def _first_calls(results: dict[str, Any]) -> str:
    """The first call after loading, against later ones."""
    rows = {
        name: row
        for entry in sections(results, "in memory")
        for name, row in entry["contenders"].items()
        if "median_s" in row
    }
    if not rows:
        return ""
    times = ", ".join(
        f"{row['title']} {row['first_call_s']:.2f} s ({row['median_s']:.2f} s)"
        for row in rows.values()
    )
    return f"First call after loading (later calls), in memory: {times}."


def volume_table(results: dict[str, Any]) -> str:
    """Seconds of cubes, exponents and threads, and the plot."""
    rows = _of_sizes(results)
    if not rows:
        return MISSING
    times = {name: row["seconds_of_size"] for name, row in rows.items()}
    sizes = sorted({int(n) for of_size in times.values() for n in of_size})
    cells = [
        (row["title"], *_sizes(row, sizes), "" if name in IN_WINDOWS else _exponent(times[name]))
        for name, row in rows.items()
    ]
    windows, whole = (times.get(name, {}) for name in ("ours-sliding", "ours"))
    ratios = [
        f"{s / whole[n]:.1f} at {n}^3, whose voxels they hold {_share_of_windows(int(n)):.1f} times"
        for n, s in windows.items()
        if n in whole
    ]
    note = (
        f"Seconds of cubes of brain; the exponent of voxels is fitted from {FITTED_FROM}^3 on. "
        "A cube is no plausible brain, so fastbts, and only fastbts, looks for a background in it: "
        "about half of its time, which real cases on a background of 0 do not take. "
        f"fastbts in windows, which overlap by {SegmenterOptions().overlap} where MONAI's do by "
        f"0.5, takes, per voxel of the image, times one pass: {'; '.join(ratios)}. "
        f"{_threads(results)}"
    )
    plotted = "![Time against volume](../../benchmarks/results/peers.png)"
    return table(("", *(f"{n}^3" for n in sizes), "exponent"), cells, note) + f"\n\n{plotted}"


def _share_of_windows(n: int) -> float:
    """Voxels in all windows over a cube with n voxels along each axis, relative to its own."""
    spec, overlap = EngineSpec(), SegmenterOptions().overlap
    size = fitted_size((n, n, n), spec.window, overlap, spec.stride)
    return len(WindowPlan.cover((n, n, n), size, overlap)) * math.prod(size) / n**3


FITTED_FROM = 96
IN_WINDOWS = ("ours-sliding", "monai-bf16")


def _of_sizes(results: dict[str, Any]) -> dict[str, Row]:
    """Rows with times of cubes, ours first."""
    found = [entry["contenders"] for entry in sections(results, "volumes")]
    rows = {name: row for one in found for name, row in one.items() if row["seconds_of_size"]}
    return dict(sorted(rows.items(), key=lambda item: not item[0].startswith("ours")))


def _sizes(row: Row, sizes: Iterable[int]) -> list[str]:
    times = row["seconds_of_size"]
    return [f"{times[str(n)]:.2f}" if str(n) in times else "" for n in sizes]


def _exponent(times: dict[str, float]) -> str:
    """Of the sizes from `FITTED_FROM` on."""
    large = {int(n): s for n, s in times.items() if int(n) >= FITTED_FROM}
    return f"{exponent(list(large), list(large.values())):.2f}" if len(large) > 1 else ""


def _threads(results: dict[str, Any]) -> str:
    """What a second thread brings."""
    of_n = {entry["n_threads"]: entry["contenders"] for entry in sections(results, "threads")}
    if not {1, 2} <= of_n.keys():
        return ""
    gains = ", ".join(
        f"{row['title']} {row['median_s'] / of_n[2][name]['median_s']:.2f}"
        for name, row in of_n[1].items()
        if "median_s" in row
    )
    return f"Two threads against one: {gains} times as fast."


def peak_table(results: dict[str, Any]) -> str:
    """The network's share of the processor's peak, and of the time."""
    if not (entries := sections(results, "peak")):
        return MISSING
    entry = entries[-1]
    rows = [
        (
            precision,
            f"{entry['peaks_gflop_s'][precision]:.0f}",
            f"{found['gflop_s']:.0f}",
            f"{found['share_of_peak']:.0%}",
            f"{found['share_outside']:.1%}",
        )
        for precision, found in entry["of_peak"].items()
    ]
    note = f"{entry['case']}, {entry['gflop']:.0f} GFLOP. Peak: the best of some matrix products "
    note += f"by OpenVINO, in the same run. {_where(results, entry)}"
    columns = ("precision", "peak, GFLOP/s", "network, GFLOP/s", "of the peak")
    return table((*columns, "of the time outside the network"), rows, note)


def _where(results: dict[str, Any], entry: Entry) -> str:
    """Processor, load, threads and commit."""
    load = max(run["extra_info"].get("load", 0) for run in results["benchmarks"])
    quiet = "" if load <= entry["n_cpus"] + 0.5 else " It was not quiet: the times are rough."
    return (
        f"Measured on {results['machine_info']['device_name']}, {entry['n_threads']} threads, at "
        f"{entry['commit']}, while the machine's load was up to {load:.1f}; "
        f"`make bench-peers` repeats it (`benchmarks/results/peers.json`).{quiet}"
    )


def _around(rows: dict[str, Row]) -> str:
    """What each does around its network, and versions."""
    abouts = [row["about"] for row in rows.values() if "about" in row]
    versions = {
        name: value
        for about in abouts
        for name, value in about.items()
        if name not in ("around", "precision")
    }
    around: dict[str, list[str]] = {}
    for row in rows.values():
        if "about" in row:
            around.setdefault(row["about"]["around"], []).append(row["title"])
    told = "; ".join(f"{', '.join(titles)}: {what}" for what, titles in around.items())
    return (
        f"Versions: {', '.join(f'{name} {v}' for name, v in versions.items())}. "
        f"Around the network: {told}."
    )


TABLES = {
    "short": short_table,
    "memory": memory_table,
    "process": process_table,
    "volume": volume_table,
    "peak": peak_table,
}


def plot(results: dict[str, Any], path: Path) -> None:
    """Time against volume, log-log, as a small PNG; none without results."""
    from matplotlib.figure import Figure

    rows = _of_sizes(results)
    if not rows:
        return
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    for row in rows.values():
        times = row.get("seconds_of_size", {})
        axes.plot([int(n) ** 3 / 1e6 for n in times], times.values(), "o-", label=row["title"])
    axes.set(xscale="log", yscale="log", xlabel="million voxels", ylabel="seconds")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
