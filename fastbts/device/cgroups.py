"""The cgroups (containers) of this process, of version 1 or 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cgroup_folders(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """Folders of each cgroup above this process; a container sees its own as the topmost one.

    Args:
        controller: Of cgroups of version 1, such as "memory"; those of version 2 count always.
        proc: Where procfs is mounted.
        cgroups: Where the cgroups are mounted.
    """
    for line in text_of(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = cgroups / controllers
            inside = top / path.lstrip("/")
            for folder in (inside, *inside.parents):
                yield folder
                if folder == top:
                    break


def text_of(path: Path) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
