"""How much memory a pass of the network needs, how much is free, and which mode follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastbts.engine.interface import Engine
from fastbts.errors import DeviceError, is_out_of_memory

ONE_PASS_BYTES = {"fp32": 160, "bf16": 115, "fp16": 160, "int8": 100}
"""Memory that a pass of the shipped network takes per voxel of its tensor: a fifth more than the
largest rise of resident memory over 64^3 to 160 x 160 x 96 voxels (fp32 135 with OpenVINO, 122 with
ONNX Runtime; bf16 97; int8 83; fp16 was not measured)."""
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


def choose_mode(engine: Engine, n_voxels: int, n_window: int, free: int | None) -> tuple[str, str]:
    """The mode for a tensor, and why: one pass if it fits into the memory.

    Args:
        engine: The network.
        n_voxels: Of the tensor.
        n_window: Of a sliding window.
        free: Memory that is free, in bytes; None if unknown.
    """
    if n_voxels <= n_window:
        return "one-pass", "a sliding window is not smaller"
    if engine.description["device"] != "cpu":
        return "one-pass", "the network runs on a device with its own memory"
    if free is None:
        return "one-pass", "the system does not say how much memory is free"
    needed = pass_bytes(engine, n_voxels)
    mode = "one-pass" if needed <= free else "sliding"
    return mode, f"one pass needs about {_gb(needed)} more, {_gb(free)} are free"


def pass_bytes(engine: Engine, n_voxels: int) -> int:
    """Memory that one pass over so many voxels takes, beyond what the engine keeps from others."""
    per_voxel = ONE_PASS_BYTES.get(engine.description["precision"], max(ONE_PASS_BYTES.values()))
    return round(per_voxel * max(0, n_voxels - getattr(engine, "n_voxels_held", 0)))


@contextmanager
def memory_explained(
    engine: Engine, n_voxels: int, free: int | None, way_out: str
) -> Iterator[None]:
    """Turns a lack of memory for the network into a DeviceError that says what it needs.

    Args:
        engine: The network.
        n_voxels: Of the largest tensor in the block.
        free: Memory that was free before it, in bytes; None if unknown.
        way_out: Ends the message.
    """
    needed = pass_bytes(engine, n_voxels)
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        left = "" if free is None else f", {_gb(free)} were free"
        raise DeviceError(
            f"out of memory: the network needs about {_gb(needed)} for {n_voxels} voxels{left}; "
            f"free memory or use a larger machine{way_out}"
        ) from error


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Memory that this process can still take; None where the system does not say.

    The least of what the machine, the cgroups (containers) and `ulimit -v` and `-d` leave.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where the cgroups are mounted, of version 1 or 2.
    """
    found = [*_of_machine(proc), *_of_limits(proc), *_of_cgroups(proc, cgroups)]
    return max(0, min(found)) if found else None


def _of_machine(proc: Path) -> Iterator[int]:
    fields = _fields(proc / "meminfo")
    if "MemAvailable:" in fields:
        yield fields["MemAvailable:"] << 10


def _of_limits(proc: Path) -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    used = _fields(proc / "self/status")
    for limit, field in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and field in used:
            yield soft - (used[field] << 10)


def _of_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Of each memory cgroup above this process. A container sees its own as the topmost one."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = cgroups / controllers
            inside = top / path.lstrip("/")
            for folder in (inside, *inside.parents):
                yield from _of_cgroup(folder)
                if folder == top:
                    break


def _of_cgroup(folder: Path) -> Iterator[int]:
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _text(folder / limit).strip(), _text(folder / used).strip()
        if most.isdigit() and now.isdigit() and int(most) < UNLIMITED:
            # The kernel drops cached files before it refuses memory.
            yield int(most) - int(now) + _fields(folder / "memory.stat").get(reclaimable, 0)


def _fields(path: Path) -> dict[str, int]:
    """First number after each name in a file of the kernel."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
