"""Loading an engine file into the backend that runs it."""

from __future__ import annotations

from pathlib import Path

from fastbts.engine import Engine
from fastbts.enginefile import EngineFile, read_engine_file
from fastbts.errors import DeviceError, OptionsError

BACKENDS = {"openvino": ("cpu",), "onnxruntime": ("cpu", "cuda"), "tensorrt": ("cuda",), "tensorrt-rtx": ("cuda",)}
"""Devices of each backend; the first is what "auto" means to it."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "bf16", "f16", "f32")


def default_engine_path() -> Path:
    """The shipped engine, inside the installed package or, in a checkout, in `models/`."""
    name = "fastbts-light.fbts"
    installed = Path(__file__).parents[1] / "models" / name
    return installed if installed.is_file() else Path(__file__).parents[2] / "models" / name


def load_engine(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    backend: str = "auto",
) -> Engine:
    """Loads an engine file.

    Args:
        path: A `.fbts` file; None for the shipped engine.
        device: "cpu", "cuda", or "auto" for the backend's own.
        precision: "f32" is faithful; "bf16" is about twice as fast where the CPU computes in it; "auto" is bf16 on such CPUs
            and f32 on others. ONNX Runtime and TensorRT compute in what the ONNX was exported in.
        threads: CPU threads for the network; 0 for all.
        backend: "openvino", "onnxruntime", "tensorrt" or "tensorrt-rtx"; "auto" for what suits file and device: the plan's own if
            the file has an `engine.plan` and the device is not the CPU, else OpenVINO, or ONNX Runtime for CUDA.
    Raises:
        EngineFileError: The file is damaged or not an engine.
        DeviceError: The device, the precision or the backend cannot be used here.
        OptionsError: An unknown device, precision or backend.
    """
    _known("device", device, DEVICES)
    _known("precision", precision, PRECISIONS)
    _known("backend", backend, ("auto", *BACKENDS))
    file = read_engine_file(path or default_engine_path())
    return _load(file, _backend(file, backend, device), device, precision, threads)


def _load(file: EngineFile, backend: str, device: str, precision: str, threads: int) -> Engine:
    if device not in ("auto", *BACKENDS[backend]):
        raise DeviceError(f"device {device!r}: backend {backend!r} runs on {' or '.join(BACKENDS[backend])}")
    if backend == "onnxruntime":
        from fastbts.engines.onnxruntime import ONNXRuntimeEngine

        return ONNXRuntimeEngine(file, device=device, precision=precision, threads=threads)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from fastbts.engines.tensorrt import TensorRTEngine

        return TensorRTEngine(file, backend, precision=precision)
    from fastbts.engines.openvino import OpenVINOEngine

    return OpenVINOEngine(file, precision=precision, threads=threads)


def _backend(file: EngineFile, wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    if "engine.plan" in file.payloads and device != "cpu":
        from fastbts.engines.tensorrt import plan_backend

        return plan_backend(file)
    return "onnxruntime" if device == "cuda" else "openvino"


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionsError(f"{what} {value!r}: expected one of {', '.join(known)}")
