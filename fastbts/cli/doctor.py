"""What this machine and installation can run, and how to get the rest: `fastbts doctor`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastbts.about import __version__
from fastbts.cli.findings import Finding
from fastbts.engine.backends.cuda import Cuda
from fastbts.engine.backends.tensorrt import PACKAGES
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.errors import DeviceError, FastBTSError


def survey() -> Iterator[Finding]:
    """Looks at software, the shipped engine, and each backend with its device; never raises for what is missing."""
    yield Finding(
        "fastbts", True, f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    )
    yield Finding("processor", True, f"{platform.machine()}, {os.cpu_count()} threads")
    yield _tried("shipped engine", lambda: _engine(default_engine_path()))
    yield _tried("openvino", _openvino)
    yield _tried("onnxruntime", _onnxruntime)
    for backend, (module, command) in PACKAGES.items():
        yield _tried(backend, partial(_tensorrt, module, command))
    yield _tried("cuda device", _cuda)
    yield _tried("int8 (nncf)", partial(_extra, "nncf", "quantize"))
    yield _tried("signatures", partial(_extra, "cryptography", "sign"))


def _tried(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except FastBTSError as error:
        return Finding(name, False, str(error))


def _engine(path: Path) -> str:
    file = read_engine_file(path)
    return f"{file.spec.name}, sha256 {file.sha256[:16]}..."


def _openvino() -> str:
    from fastbts.engine.backends.openvino import package

    ov = package()
    core = ov.Core()
    precisions = [
        "fp32",
        *(["bf16"] if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else []),
        "int8",
    ]
    device = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    return f"{ov.__version__.split('-')[0]} on {device}: {', '.join(precisions)}"


def _onnxruntime() -> str:
    ort = _module("onnxruntime", "pip install 'fastbts[onnxruntime]'")
    devices = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    return f"{ort.__version__} with {', '.join(devices)}: fp32"


def _tensorrt(module: str, command: str) -> str:
    return f"{_module(module, command).__version__}: builds plans; to run them takes a CUDA device"


def _cuda() -> str:
    return f"compute capability {Cuda().compute_capability()}"


def _extra(name: str, extra: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise DeviceError(
            f"{name} is not installed; install it with: pip install 'fastbts[{extra}]'"
        ) from None


def _module(name: str, command: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: the package is there, a library of it is not
        raise DeviceError(f"{name} is not installed; install it with: {command}") from error
