"""`fastbts.ops` on an emulated CUDA device, with the real bindings, launchers and kernels.

`emulated_device` replaces the C++ module of `fastbts` by one that is built with the emulation
(simt.h); `EmulatedArray` presents the memory of a NumPy array as that of a device.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbts._C
from tests.simt.build import ROOT, shared_library

DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
STREAM = 7
"""Handle of the stream that the emulation expects all work on; it is never dereferenced."""


class EmulationError(Exception):
    """An error that the emulation found in a launch or a kernel."""


@cache
def library() -> Path:
    """The whole C++ module with the emulated CUDA runtime, and `kernels.cpp`."""
    pybind11 = pytest.importorskip("pybind11")
    folders = ("csrc/bindings", "csrc/core/cuda", "csrc/ops", "tests/simt")
    paths = (path for folder in folders for path in sorted((ROOT / folder).iterdir()))
    sources = [p for p in paths if p.suffix in (".cpp", ".cu") and p.name != "plugins.cpp"]
    includes = (pybind11.get_include(), sysconfig.get_paths()["include"])
    options = ("-DFASTBTS_HAS_CUDA", *(f"-isystem{path}" for path in includes))
    return shared_library("module", sources, options)


@cache
def module() -> ModuleType:
    """The library as a second `fastbts._C`."""
    loader = ExtensionFileLoader("tests.simt._C", str(library()))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    loaded_module = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded_module)
    return loaded_module


@contextmanager
def emulated_device(
    seed: int = 0, *, barriers: bool = True, withheld: int = 0, stream: int = STREAM
) -> Iterator[None]:
    """Within it `fastbts.ops` runs on the emulated device.

    Args:
        seed: Sets the order of threads and blocks.
        barriers: Whether `__syncthreads` waits; without it kernels that need it are wrong.
        withheld: Bytes of shared memory that each launch gets less than it asks for.
        stream: The one that all work must be queued on.
    """
    plan = ctypes.CDLL(str(library())).simt_plan
    plan(seed, int(barriers), ctypes.c_size_t(withheld), ctypes.c_void_p(stream))
    with module_in_place():
        yield
    plan(0, 1, ctypes.c_size_t(0), None)


@contextmanager
def module_in_place() -> Iterator[None]:
    """Within it all that uses `fastbts._C` uses the emulated one."""
    real, emulated = fastbts._C, module()
    _exchange(real, emulated)
    try:
        yield
    finally:
        _exchange(emulated, real)


def _exchange(old: ModuleType, new: ModuleType) -> None:
    """Also in modules that were imported since the last exchange."""
    for member in list(sys.modules.values()):
        if getattr(member, "__dict__", {}).get("_C") is old:
            member.__dict__["_C"] = new
    sys.modules["fastbts._C"] = new


class _DLTensor(ctypes.Structure):
    """The beginning of DLPack's struct of that name."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("n_axes", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
    )


_CUDA, _BFLOAT = 2, 4
_tensor_of = ctypes.pythonapi.PyCapsule_GetPointer
_tensor_of.restype, _tensor_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def cuda_capsule(array: NDArray[Any], device: int = 0, *, is_bfloat: bool = False) -> object:
    """A DLPack capsule of a NumPy array that says that it is on a CUDA device."""
    capsule = array.__dlpack__()
    tensor = _DLTensor.from_address(_tensor_of(capsule, b"dltensor"))
    tensor.device_type, tensor.device_id = _CUDA, device
    if is_bfloat:
        tensor.type_code = _BFLOAT
    return capsule


class EmulatedArray:
    """The memory of a NumPy array, said to be on a CUDA device; float32 in, another type there.

    `get` returns what it holds, as CuPy's arrays do.
    """

    def __init__(self, array: NDArray[Any], dtype: str = "float32") -> None:
        self.array = stored(array, dtype) if dtype != "float32" else array
        self.dtype, self.shape = dtype, array.shape

    def cropped(self, channels: slice) -> EmulatedArray:
        """Some channels of a tensor (B, C, ...), with the memory of this one."""
        part = EmulatedArray(self.array[:, channels])
        part.dtype = self.dtype
        return part

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.array[index]

    def __len__(self) -> int:
        return len(self.array)

    def get(self) -> NDArray[Any]:
        return loaded(self.array, self.dtype) if self.dtype != "float32" else self.array

    def tolist(self) -> list[Any]:
        return self.array.tolist()

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int] | None = None) -> object:
        assert stream == STREAM
        return cuda_capsule(self.array, is_bfloat=self.dtype == "bfloat16")


def call(name: str, *arguments: Any) -> None:
    """Calls a function of `kernels.cpp`; arrays become pointers."""
    ctypes.CDLL(str(library())).simt_plan(0, 1, ctypes.c_size_t(0), None)
    function = getattr(ctypes.CDLL(str(library())), f"simt_{name}")
    function.restype = ctypes.c_char_p
    pointers = (
        ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments
    )
    message = function(*pointers)
    if message is not None:
        raise EmulationError(message.decode())


def stored(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The bits of an array in a type of the network."""
    if dtype != "bfloat16":
        return array.astype(dtype)
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def loaded(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The inverse of `stored`."""
    if dtype != "bfloat16":
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)


def rounded(array: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """An array whose values a type of the network can hold."""
    return loaded(stored(array, dtype), dtype)


def run_sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with emulated code watched by the address and undefined-behaviour sanitizers.

    Their runtime is loaded first, as Python itself is not instrumented.
    """
    compiler = os.environ.get("CXX", "c++")
    find = [[compiler, f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
    runtimes = [subprocess.run(f, capture_output=True, text=True, check=True) for f in find]
    paths = [run.stdout.strip() for run in runtimes]
    if not all(Path(path).is_absolute() for path in paths):
        pytest.skip("the compiler has no address sanitizer")
    environment = {
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0",
        "FASTBTS_SIMT_SANITIZE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
