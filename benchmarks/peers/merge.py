"""Joins the result files of several runs: `python -m benchmarks.peers.merge OUT.json PART.json ...`

For a machine that is quiet for some minutes only. A later part replaces what an earlier one has of
the same benchmark. All must be of one machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One result file of several.

    Raises:
        ValueError: They are of different processors.
    """
    devices = {part["machine_info"]["device_name"] for part in parts}
    if len(devices) != 1:
        raise ValueError(f"results of one processor expected, got {sorted(devices)}")
    runs = {run["name"]: run for part in parts for run in part["benchmarks"]}
    return {**parts[-1], "benchmarks": [runs[name] for name in sorted(runs)]}


def main(out: Path, *paths: Path) -> None:
    """Writes the joined file; one that is there already is the first part."""
    first = [out] if out.is_file() else []
    parts = [json.loads(path.read_text()) for path in (*first, *paths)]
    out.write_text(json.dumps(merged(parts), indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
