"""How many CPUs of the host this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from fastbts.device.cgroups import CGROUPS, PROC, cgroup_folders, text_of


def n_cpus() -> int:
    """CPUs that this process may use: by its affinity (`taskset`), and by its container's limit."""
    return n_limited_cpus() or _n_allowed()


def n_limited_cpus(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The limit of this process's cgroups, `docker run --cpus`, rounded up.

    0 where it is not less than the CPUs that the process may run on: with more threads than the
    limit allows, the kernel would stop all of them for a part of each 0.1 s.
    """
    limit = min(_limits(proc, cgroups), default=math.inf)
    return max(1, math.ceil(limit)) if limit < _n_allowed() else 0


def _n_allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limits(proc: Path, cgroups: Path) -> Iterator[float]:
    for folder in cgroup_folders("cpu", proc, cgroups):
        v2 = text_of(folder / "cpu.max").split()
        v1 = [text_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        for quota in (v2, v1):
            if len(quota) == 2 and all(number.isdigit() for number in quota):  # "max", -1: none
                yield int(quota[0]) / max(1, int(quota[1]))
