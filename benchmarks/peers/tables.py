"""Tables and plots of `benchmarks/bench_peers.py`, for `benchmarks.make_tables`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.markdown import table

Entry = dict[str, Any]
"""The `extra_info` of one benchmark."""
Row = dict[str, Any]
MISSING = "Not measured yet."


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
    return table(columns, rows, f"{_where(results, entries[0])} {_around(ran)}")


MORE = ("Dice WT, TC, ET", "same labels as fp32", "MB", "prepare / network / label ms")


def _memory_rows(entries: list[Entry]) -> list[tuple[str, ...]]:
    """Of one case; a contender of several groups is shown as in the first."""
    rows: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        ours = entry["contenders"]["ours"]["median_s"]
        for name, row in entry["contenders"].items():
            if name not in rows:
                rows[name] = _memory_row(row, row.get("median_s", 0) / ours)
    return list(rows.values())


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
    found = {name: sections(results, name)[-1:] for name in shown}
    entries = {name: entry[0] for name, entry in found.items() if entry}
    if not entries:
        return MISSING
    names = dict.fromkeys(name for entry in entries.values() for name in entry["contenders"])
    titles = {name: row["title"] for e in entries.values() for name, row in e["contenders"].items()}
    rows = [
        (titles[name], *(cell for key in shown for cell in _cells(entries.get(key), name)))
        for name in names
    ]
    columns = (
        *("", "arrays to labels, new process, s", "times"),
        *("files to file, new process, s", "times"),
        *("files to file, per case of several, s", "times"),
    )
    entry = next(iter(entries.values()))
    return table(
        columns, rows, f"{entry['case']}. {_where(results, entry)} {_first_calls(results)}"
    )


def _cells(entry: Entry | None, name: str) -> tuple[str, str]:
    """Seconds per case, and how many times those of fastbts."""
    row = (entry or {"contenders": {}})["contenders"].get(name, {})
    if entry is None or "median_s" not in row:
        return "-", ""
    seconds = row["median_s"] / entry.get("n_cases", 1)
    return f"{seconds:.2f}", f"{row['median_s'] / entry['contenders']['ours']['median_s']:.1f}"


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
    """Seconds of cubes, exponents and threads."""
    if not (entries := sections(results, "volumes")):
        return MISSING
    entry = entries[0]
    rows = {n: row for n, row in entry["contenders"].items() if row.get("seconds_of_size")}
    sizes = sorted({int(n) for row in rows.values() for n in row["seconds_of_size"]})
    cells = [(row["title"], *_sizes(row, sizes), _exponent(entry, n)) for n, row in rows.items()]
    ratios = entry["fits"]["windows_to_one_pass"].items()
    note = (
        f"Seconds of cubes of brain; the exponent of voxels is fitted from "
        f"{entry['fits']['fitted_from']}^3 on. Windows against one pass: "
        f"{', '.join(f'{ratio:.1f} at {n}^3' for n, ratio in ratios)}. {_threads(results)}"
    )
    return table(("", *(f"{n}^3" for n in sizes), "exponent"), cells, note)


def _sizes(row: Row, sizes: Iterable[int]) -> list[str]:
    times = row["seconds_of_size"]
    return [f"{times[str(n)]:.2f}" if str(n) in times else "" for n in sizes]


def _exponent(entry: Entry, name: str) -> str:
    found = entry["fits"]["exponents"].get(name)
    return "" if found is None else f"{found:.2f}"


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
    """Processor, threads and commit."""
    return (
        f"Measured on {results['machine_info']['device_name']}, {entry['n_threads']} threads, "
        f"at {entry['commit']}; `make bench-peers` repeats it (`benchmarks/results/peers.json`)."
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
    "memory": memory_table,
    "process": process_table,
    "volume": volume_table,
    "peak": peak_table,
}


def plot(results: dict[str, Any], path: Path) -> None:
    """Time against volume, log-log, as a small PNG; none without results."""
    from matplotlib.figure import Figure

    entries = sections(results, "volumes")
    if not entries:
        return
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    for row in entries[0]["contenders"].values():
        times = row.get("seconds_of_size", {})
        axes.plot([int(n) ** 3 / 1e6 for n in times], times.values(), "o-", label=row["title"])
    axes.set(xscale="log", yscale="log", xlabel="million voxels", ylabel="seconds")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
