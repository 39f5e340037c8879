"""Loading an engine file into the backend that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.interface import Engine
from fastbts.errors import DeviceError, EngineFileError, OptionsError

BACKENDS = {
    "openvino": ("cpu",),
    "onnxruntime": ("cpu", "cuda"),
    "tensorrt": ("cuda",),
    "tensorrt-rtx": ("cuda",),
}
"""Devices of each backend; the first is what "auto" means to it."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


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
    n_threads: int = 0,
    backend: str = "auto",
    trusted_key: str | Path | None = None,
) -> Engine:
    """Loads an engine file.

    Args:
        path: A `.fbts` file; None for the shipped engine.
        device: "cpu", "cuda", or "auto" for the backend's own.
        precision: "fp32" is faithful; "bf16" is about twice as fast where the CPU computes in it; "int8" needs a file that
            `fastbts build` made for it; "auto" is what the file was built for, else bf16 on such CPUs and fp32 on others. ONNX
            Runtime and TensorRT compute in what the ONNX was exported in.
        n_threads: CPU threads for the network; 0 for all.
        backend: "openvino", "onnxruntime", "tensorrt" or "tensorrt-rtx"; "auto" for what the file was built for, if that runs on
            the device, else OpenVINO, or ONNX Runtime for CUDA.
        trusted_key: Public key (PEM, `fastbts keygen`) whose holder must have signed the file; None asks for no signature.
    Raises:
        EngineFileError: The file is damaged, not an engine, or not signed as demanded.
        DeviceError: The device, the precision or the backend cannot be used here.
        OptionsError: An unknown device, precision or backend.
    """
    file = read_engine(path, trusted_key)
    return open_engine(file, device=device, precision=precision, n_threads=n_threads, backend=backend)


def read_engine(path: str | Path | None, trusted_key: str | Path | None = None) -> EngineFile:
    """Reads and checks an engine file, and who signed it; see `load_engine`."""
    file = read_engine_file(path or default_engine_path())
    if trusted_key is not None:
        from fastbts.engine.signing import check_signature

        check_signature(file, trusted_key)
    return file


def open_engine(
    file: EngineFile,
    *,
    device: str = "auto",
    precision: str = "auto",
    n_threads: int = 0,
    backend: str = "auto",
) -> Engine:
    """Loads an engine from a file that has been read; see `load_engine`."""
    _known("device", device, DEVICES)
    _known("precision", precision, PRECISIONS)
    _known("backend", backend, ("auto", *BACKENDS))
    built_for, built_in = _built(file)
    backend = _backend(file, backend, device, built_for)
    if precision == "auto" and backend == built_for:
        precision = built_in
    return _load(file, backend, device, precision, n_threads)


def build_payloads(
    file: EngineFile, backend: str, precision: str, tensors: Sequence[NDArray[np.float32]]
) -> dict[str, bytes]:
    """What an engine file for a backend and precision holds beside the source's ONNX, or in its place.

    Args:
        file: The source.
        backend: One of `BACKENDS`.
        precision: "fp32", "bf16", ...: one that the backend has.
        tensors: Prepared cases (M, D, H, W) to calibrate int8 on.
    Raises:
        OptionsError, DeviceError, EngineFileError: See `build` of the backend's module.
    """
    _known("backend", backend, tuple(BACKENDS))
    if backend == "openvino":
        from fastbts.engine.backends import openvino

        return openvino.build(file, precision, tensors)
    onnx_bytes = bytes(file.payloads["model.onnx"])
    if backend == "onnxruntime":
        from fastbts.engine.backends import onnxruntime

        return onnxruntime.build(onnx_bytes, file.spec, precision)
    from fastbts.engine.backends import tensorrt

    return tensorrt.build(onnx_bytes, file.spec, precision, backend=backend)


def _built(file: EngineFile) -> tuple[str, str]:
    """Backend and precision that the file was built for; "auto" where it was not."""
    build = file.manifest.get("build", {})
    backend, precision = build.get("backend", "auto"), build.get("precision", "auto")
    if backend not in ("auto", *BACKENDS) or precision not in PRECISIONS:
        raise EngineFileError(
            f"{file.path}: built for backend {backend!r} in {precision!r}, which this fastbts does not know; update it or rebuild"
        )
    return backend, precision


def _load(file: EngineFile, backend: str, device: str, precision: str, n_threads: int) -> Engine:
    if device not in ("auto", *BACKENDS[backend]):
        raise DeviceError(
            f"device {device!r}: backend {backend!r} runs on {' or '.join(BACKENDS[backend])}"
        )
    if backend == "onnxruntime":
        from fastbts.engine.backends.onnxruntime import ONNXRuntimeEngine

        return ONNXRuntimeEngine(file, device=device, precision=precision, threads=n_threads)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from fastbts.engine.backends.tensorrt import TensorRTEngine

        return TensorRTEngine(file, backend, precision=precision)
    from fastbts.engine.backends.openvino import OpenVINOEngine

    return OpenVINOEngine(file, precision=precision, threads=n_threads)


def _backend(file: EngineFile, wanted: str, device: str, built_for: str) -> str:
    if wanted != "auto":
        return wanted
    if built_for != "auto" and device in ("auto", *BACKENDS[built_for]):
        return built_for
    if "engine.plan" in file.payloads and device != "cpu":
        from fastbts.engine.backends.tensorrt import plan_backend

        return plan_backend(file)
    return "onnxruntime" if device == "cuda" else "openvino"


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionsError(f"{what} {value!r}: expected one of {', '.join(known)}")
