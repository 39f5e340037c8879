"""How much memory a pass of the network needs, and which mode follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastbts.device.host_memory import check_limits, in_gb
from fastbts.engine.interface import Engine, parallel_of
from fastbts.errors import DeviceError, is_out_of_memory

ONE_PASS_BYTES = {"fp32": 160, "bf16": 115, "fp16": 160, "int8": 135}
"""Memory that a pass of the shipped network takes per voxel of its tensor: a fifth more than the
largest rise of resident memory over 64^3 to 160 x 160 x 96 voxels (fp32 135 with OpenVINO, 122 with
ONNX Runtime; bf16 97; int8 113 from 96^3 on; fp16 was not measured)."""


def choose_mode(
    engine: Engine, n_voxels: int, n_window: int, device: str, free: int | None
) -> tuple[str, str]:
    """The mode for a tensor, and why: one pass if it fits into the memory.

    Args:
        engine: The network.
        n_voxels: Of the tensor.
        n_window: Of a sliding window.
        device: Where the tensor is.
        free: Memory that is free, in bytes; None if unknown.
    """
    if n_voxels <= n_window:
        return "one-pass", "a sliding window is not smaller"
    if engine.description["device"] != "cpu" and device == "cpu":
        return "one-pass", "the network runs on a device with its own memory"
    if free is None:
        return "one-pass", "the system does not say how much memory is free"
    needed, n = pass_bytes(engine, n_voxels), parallel_of(engine)
    mode = "one-pass" if n * needed <= free else "sliding"
    passes = "one pass needs" if n == 1 else f"{n} passes at once, each of which needs"
    return mode, f"{passes} about {in_gb(needed)} more, {in_gb(free)} are free"


def pass_bytes(engine: Engine, n_voxels: int) -> int:
    """Memory that one pass over so many voxels takes, beyond what the engine keeps from others."""
    per_voxel = ONE_PASS_BYTES.get(engine.description["precision"], max(ONE_PASS_BYTES.values()))
    return round(per_voxel * max(0, n_voxels - getattr(engine, "n_voxels_held", 0)))


@contextmanager
def memory_explained(
    engine: Engine, n_voxels: int, free: int | None, way_out: str
) -> Iterator[None]:
    """Turns a lack of memory for the network into a DeviceError that says what it needs.

    Where a limit leaves too little, it is not tried: see `check_limits`.

    Args:
        engine: The network.
        n_voxels: Of the largest tensor in the block.
        free: Memory that was free before it, in bytes; None if unknown.
        way_out: Ends the message.
    """
    needed = pass_bytes(engine, n_voxels)
    try:
        if engine.description["device"] == "cpu":
            check_limits(needed, "the network")
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        left = "" if free is None else f", {in_gb(free)} were free"
        raise DeviceError(
            f"out of memory: the network needs about {in_gb(needed)} for {n_voxels} voxels{left}; "
            f"free memory or use a larger machine{way_out}"
        ) from error
