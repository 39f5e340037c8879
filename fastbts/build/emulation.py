"""Runs on the CPU what a plan computes on a GPU, so that parity is measured where there is none."""

from __future__ import annotations

from fastbts.engine.backends import BACKENDS
from fastbts.engine.backends.calibration import recorded_ranges
from fastbts.engine.file import EngineFile, pack_engine, parse_engine_file
from fastbts.engine.interface import Engine
from fastbts.engine.load import open_engine
from fastbts.engine.precision import emulated
from fastbts.errors import DeviceError


def runnable_engine(built: EngineFile) -> tuple[Engine, bool]:
    """The built engine; or where its GPU is lacking, one that emulates it, and True.

    Raises:
        DeviceError: Neither runs here.
    """
    try:
        return open_engine(built), False
    except DeviceError as error:
        if "cuda" not in BACKENDS[built.manifest["build"]["backend"]].devices:
            raise
        try:
            return emulated_engine(built), True
        except DeviceError as second:
            raise DeviceError(f"{error}; {second}") from error


def emulated_engine(built: EngineFile) -> Engine:
    """ONNX Runtime on the CPU, on a network in float32 that rounds as the built one does.

    Sums may run in another order on the GPU.

    Raises:
        DeviceError: ONNX Runtime is not installed.
    """
    precision = built.manifest["build"]["precision"]
    payloads = {"model.onnx": emulated(built, precision, recorded_ranges(built))}
    network = parse_engine_file(pack_engine(built.spec, payloads), built.path)
    return open_engine(network, backend="onnxruntime", device="cpu", precision="fp32")
