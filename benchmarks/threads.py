"""Threads: a case's stages by the CPUs that the process may use, and ways to segment many cases.

    python -m benchmarks.threads [--data DIR] [--cases 12] [--rounds 5] [--minutes 10] [--json FILE]

Each setting has a process of its own, which stays: a round runs all of them, one after the other.
A way to segment many cases goes from files to files. Without --data the cases are copies of one
synthetic head, each moved by some voxels. For its times the machine must do nothing else;
`others_cpus` is what other processes took meanwhile. No round begins after so many minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from fastbts import Segmentation, Segmenter, SegmenterOptions, __version__, find_cases
from fastbts.phantom import make_case, write_case

STAGES = ("read", "normalize", "infer", "label", "save", "total")
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as made:
        cases = chosen(given.data, given.cases) if given.data else phantoms(Path(made), given.cases)
        out = Path(made) / "out"
        results = {
            "fastbts": __version__,
            "engine": _segmenter(1).engine.description,
            "n_cases": len(cases),
            "kind": "real" if given.data else "synthetic",
            "scaling": scaling(cases[: given.scaling_cases], out, given.rounds, end),
            "batch": batch(cases, out, given.rounds, end),
            "machine": machine(),
        }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[key] for key in ("scaling", "batch")}, indent=1))


def scaling(cases: list[Path], out: Path, rounds: int, end: float) -> list[Row]:
    """Medians of the stages on 1, 2, 4, ... CPUs."""
    n, rows = len(os.sched_getaffinity(0)), list[Row]()
    settings = {k: partial(stages, cases, out) for k in sorted({*powers_of_two(n), n})}
    for n_cpus, runs in interleaved(settings, rounds, end, n_cpus=lambda key: key).items():
        times = [times for run in runs for times in run["result"]]
        medians = {s: round(statistics.median(t[s] for t in times), 1) for s in STAGES}
        rows.append({"cpus": n_cpus, "stages_ms": medians, "n_runs": len(times), **others(runs)})
    return rows


def batch(cases: list[Path], out: Path, rounds: int, end: float) -> list[Row]:
    """Each way to segment all cases: time, memory, and the voxels that differ from the first's."""
    rows, n = list[Row](), len(os.sched_getaffinity(0))
    settings = {name: partial(timed, name, cases, out / name) for name in WAYS}
    found = interleaved(settings, rounds, end, n_cpus=lambda key: n)
    first = next(iter(found.values()))
    for name, runs in found.items():
        ratios = [a["result"]["s"] / b["result"]["s"] for a, b in zip(first, runs, strict=True)]
        rows.append(
            {
                "way": name,
                "seconds": [round(run["result"]["s"], 3) for run in runs],
                "median_s": round(statistics.median(run["result"]["s"] for run in runs), 3),
                "times_faster": round(statistics.median(ratios), 3),
                "peak_mb": max(run["result"]["peak_mb"] for run in runs),
                "voxels_that_differ": differences(cases, out / next(iter(WAYS)), out / name),
                **others(runs),
            }
        )
    return rows


def interleaved(
    settings: Mapping[Any, Callable[[], Any]],
    rounds: int,
    end: float,
    n_cpus: Callable[[Any], int],
) -> dict[Any, list[Row]]:
    """The runs of each setting after one that warms up; one at least, else none after `end`."""
    found: dict[Any, list[Row]] = {key: [] for key in settings}
    with ExitStack() as opened:
        workers = {
            key: opened.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), on_cpus, (n_cpus(key),))
            )
            for key in settings
        }
        for n in range(rounds + 1):
            if n > 1 and time.monotonic() > end:
                break
            for key, work in settings.items():
                run = workers[key].submit(watched, work).result()
                if n:
                    found[key].append(run)
                print(f"round {n}: {key}: {run['wall_s']:.2f} s", file=sys.stderr, flush=True)
    return found


def watched(work: Callable[[], Any]) -> Row:
    """A run's result and time, and the CPUs that other processes took meanwhile."""
    others, began = _busy_s() - _own_s(), time.perf_counter()
    result = work()
    wall_s = time.perf_counter() - began
    return {"result": result, "wall_s": wall_s, "others": (_busy_s() - _own_s() - others) / wall_s}


def others(runs: list[Row]) -> Row:
    return {"others_cpus": round(statistics.median(run["others"] for run in runs), 2)}


def on_cpus(n: int) -> None:
    """Keeps this process on so many CPUs."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])


def stages(cases: list[Path], out: Path) -> list[dict[str, float]]:
    """Milliseconds of each stage of each case, from files to a file."""
    times = []
    for case in cases:
        began = time.perf_counter()
        result = _segmenter(1).predict(case)
        saved = time.perf_counter()
        result.save(out / f"{case.name}.nii.gz", overwrite=True)
        ended = time.perf_counter()
        save, total = 1000 * (ended - saved), 1000 * (ended - began)
        times.append({**result.timings_ms, "save": save, "total": total})
    return times


def timed(name: str, cases: list[Path], out: Path) -> Row:
    """One way over all cases: seconds, and the most memory."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    began = time.perf_counter()
    WAYS[name](cases, out)
    status = Path("/proc/self/status").read_text().split()
    peak_kb = int(status[status.index("VmHWM:") + 1])
    return {"s": time.perf_counter() - began, "peak_mb": round(peak_kb / 1000)}


def one_after_the_other(cases: list[Path], out: Path) -> None:
    for case in cases:
        _segmenter(1).predict(case).save(out / f"{case.name}.nii.gz", overwrite=True)


def as_a_batch(parallel: int, cases: list[Path], out: Path) -> None:
    results = _segmenter(parallel).predict_batch(cases, stop_on_error=True)
    for case, result in zip(cases, results, strict=True):
        assert isinstance(result, Segmentation)
        result.save(out / f"{case.name}.nii.gz", overwrite=True)


def in_threads(n: int, cases: list[Path], out: Path) -> None:
    """As a server does: several threads call `predict`."""
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(lambda case: one_after_the_other([case], out), cases))


WAYS: dict[str, Callable[[list[Path], Path], None]] = {
    "predict, one after the other": one_after_the_other,
    "predict_batch": partial(as_a_batch, 1),
    "predict_batch, parallel=2": partial(as_a_batch, 2),
    "predict in 8 threads": partial(in_threads, 8),
}


@cache
def _segmenter(parallel: int) -> Segmenter:
    return Segmenter(options=SegmenterOptions(parallel=parallel))


def differences(cases: list[Path], one: Path, other: Path) -> int:
    """Voxels whose labels differ between two folders of results, in all cases."""
    import nibabel as nib

    files = [[nib.load(way / f"{case.name}.nii.gz") for way in (one, other)] for case in cases]
    return sum(int((np.asarray(a.dataobj) != np.asarray(b.dataobj)).sum()) for a, b in files)


def chosen(data: Path, n: int) -> list[Path]:
    """So many cases from all parts of a folder."""
    found = [Path(case) for case in find_cases(data).values()]
    return found[:: max(1, len(found) // n)][:n]


def phantoms(folder: Path, n: int) -> list[Path]:
    """One synthetic head, moved by 0, 1, 2, ... voxels; writes the cases."""
    case = make_case(0)
    for shift in range(n):
        data = np.roll(case.volume.data, shift, axis=2)
        write_case(
            replace(case, volume=replace(case.volume, data=data)), folder / f"case{shift:02}"
        )
    return sorted(folder.iterdir())


def powers_of_two(most: int) -> Iterator[int]:
    n = 1
    while n <= most:
        yield n
        n *= 2


def _busy_s() -> float:
    """What all CPUs have worked since the start of the system."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of cases")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--scaling-cases", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path, help="write the results there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
