"""Loading an engine file into the backend that runs it."""

from __future__ import annotations

from pathlib import Path

from fastbts.engine import Engine
from fastbts.enginefile import read_engine_file
from fastbts.errors import DeviceError, OptionsError

DEVICES = ("auto", "cpu")
PRECISIONS = ("auto", "bf16", "f32", "int8")


def default_engine_path() -> Path:
    """The shipped engine, inside the installed package or, in a checkout, in `models/`."""
    name = "fastbts-light.fbts"
    installed = Path(__file__).parents[1] / "models" / name
    return installed if installed.is_file() else Path(__file__).parents[2] / "models" / name


def load_engine(path: str | Path | None = None, *, device: str = "auto", precision: str = "auto", threads: int = 0) -> Engine:
    """Loads an engine file.

    Args:
        path: A `.fbts` file; None for the shipped engine.
        device: "cpu", or "auto" for the best device that this installation can use (today the CPU).
        precision: "f32" is faithful; "bf16" is about twice as fast where the CPU computes in it; "int8" needs a file that
            `fastbts build` made for it; "auto" is what the file was built for, else bf16 on such CPUs and f32 on others.
        threads: CPU threads for the network; 0 for all.
    Raises:
        EngineFileError: The file is damaged or not an engine.
        DeviceError: The device, the precision or the backend cannot be used here.
        OptionsError: An unknown device or precision.
    """
    if device not in DEVICES:
        if device.startswith("cuda"):
            raise DeviceError(f"device {device!r}: this version of fastbts has no CUDA backend; use device='cpu' or 'auto'")
        raise OptionsError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise OptionsError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    file = read_engine_file(path or default_engine_path())
    from fastbts.engines.openvino import OpenVINOEngine

    return OpenVINOEngine(file, precision=precision, threads=threads)
