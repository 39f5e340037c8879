"""Cases per minute of a cohort: the plain loop, and a Ray cluster of two workers on this machine.

    python -m benchmarks.cohort [--cases 12] [--json FILE]

Needs `pip install 'fastbts[ray]'`. Each way is `fastbts predict` in a process of its own, from
files to files, and from an empty process: `seconds` is its whole wall time. `first_case_s` is the
time until the first result is on disk, which for Ray is mostly the start of the cluster. The cases
are copies of one synthetic head, moved by some voxels. The machine must do nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.threads import phantoms
from fastbts import __version__

WAYS = {
    "plain loop": ("--jobs", "2"),
    "Ray, two local workers": ("--ray", "local", "--jobs", "2", "--threads", "1"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the results there")
    given = parser.parse_args(arguments)
    import ray

    with tempfile.TemporaryDirectory() as made:
        cases = phantoms(Path(made) / "cases", given.cases)
        ways = {name: timed(cases, Path(made) / name, way) for name, way in WAYS.items()}
    results = {
        "fastbts": __version__,
        "ray": ray.__version__,
        "n_cases": len(cases),
        "kind": "synthetic",
        "ways": ways,
        "machine": machine(),
    }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(ways, indent=1))


def timed(cases: list[Path], out: Path, way: tuple[str, ...]) -> dict[str, Any]:
    """Segments the cases; all must be done."""
    command = [sys.executable, "-m", "fastbts", "predict", *map(str, cases), "-o", str(out), *way]
    began, began_at = time.perf_counter(), time.time()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    reports = [report.stat().st_mtime for report in out.glob("*/report.json")]
    assert len(reports) == len(cases), f"{len(reports)} of {len(cases)} results"
    first = min(reports) - began_at
    after = (len(cases) - 1) / (max(reports) - min(reports))
    return {
        "seconds": round(seconds, 1),
        "first_case_s": round(first, 1),
        "cases_per_minute": round(60 * len(cases) / seconds, 1),
        "cases_per_minute_after_the_first": round(60 * after, 1),
    }


if __name__ == "__main__":
    main()
