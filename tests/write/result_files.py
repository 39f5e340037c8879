"""Which run the files of a result folder are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def without_times(found: dict[str, bytes]) -> dict[str, Any]:
    """Contents of the files of a run, without temporary ones, times and the free memory then."""
    files: dict[str, Any] = {n: c for n, c in found.items() if not n.startswith(".fastbts-")}
    if "report.json" in files:
        files["report.json"] = json.loads(files["report.json"]) | {
            "timings_ms": None,
            "windows": None,
        }
    return files


def is_one_run(folder: Path, *runs: dict[str, bytes]) -> bool:
    """Whether all files are of one run."""
    found = without_times(contents(folder))
    return any(found.items() <= without_times(run).items() for run in runs)
