"""How much memory of the host this process can still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastbts.device.cgroups import CGROUPS, PROC, cgroup_folders, text_of

UNLIMITED = 1 << 60


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Memory that this process can still take; None where the system does not say.

    The least of what the machine, the cgroups (containers) and `ulimit -v` and `-d` leave.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where the cgroups are mounted, of version 1 or 2.
    """
    folders = cgroup_folders("memory", proc, cgroups)
    of_cgroups = [left for folder in folders for left in _of_cgroup(folder)]
    found = [*_of_machine(proc), *_of_limits(proc), *of_cgroups]
    return max(0, min(found)) if found else None


def limit_bytes(proc: Path = PROC) -> int | None:
    """Memory that `ulimit -v` and `-d` leave: beyond it every allocation fails. None: no limit."""
    found = list(_of_limits(proc))
    return max(0, min(found)) if found else None


def check_limits(needed: int, what: str) -> None:
    """Raises MemoryError where `ulimit -v` and `-d` leave less than what is needed.

    To try it would not do: where a small allocation fails, CPython waits forever for a thread that
    could not start, and the threads of OpenVINO end the process.

    Args:
        needed: In bytes.
        what: Begins the message.
    """
    left = limit_bytes()
    if left is not None and left < needed:
        raise MemoryError(
            f"{what} needs about {in_gb(needed)}, the limits of this process (ulimit -v, -d) "
            f"leave {in_gb(left)}"
        )


def in_gb(n_bytes: int) -> str:
    """The way that messages give amounts of memory."""
    return f"{n_bytes / 1e9:.2f} GB"


def _of_machine(proc: Path) -> Iterator[int]:
    fields = _fields(proc / "meminfo")
    if "MemAvailable:" in fields:
        yield fields["MemAvailable:"] << 10


def _of_limits(proc: Path) -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        "VmSize:": resource.getrlimit(resource.RLIMIT_AS)[0],
        "VmData:": resource.getrlimit(resource.RLIMIT_DATA)[0],
    }
    if set(limits.values()) == {resource.RLIM_INFINITY}:
        return  # as nearly always: nothing has to be read
    used = _fields(proc / "self/status")
    for field, soft in limits.items():
        if soft != resource.RLIM_INFINITY and field in used:
            yield soft - (used[field] << 10)


def _of_cgroup(folder: Path) -> Iterator[int]:
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = text_of(folder / limit).strip(), text_of(folder / used).strip()
        if most.isdigit() and now.isdigit() and int(most) < UNLIMITED:
            # The kernel drops cached files before it refuses memory.
            yield int(most) - int(now) + _fields(folder / "memory.stat").get(reclaimable, 0)


def _fields(path: Path) -> dict[str, int]:
    """First number after each name in a file of the kernel."""
    rows = (line.split() for line in text_of(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
