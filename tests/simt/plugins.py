"""The TensorRT plugins over emulated kernels, as functions of NumPy arrays.

Of TensorRT this needs NvInfer.h only.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.simt.build import ROOT, shared_library
from tests.simt.emulated import DTYPES, EmulationError

SOURCES = tuple(sorted((ROOT / "csrc/tensorrt").glob("*.cpp")))
LAUNCHERS = tuple(
    ROOT / f"csrc/ops/{name}_cuda.cu" for name in ("semantic_attention", "semantic_bridge", "widen")
)
WARNINGS = ("-Wpedantic", "-Wconversion", "-Werror")
FOLDERS = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/local/tensorrt/include")


def header_folder() -> Path:
    """Where NvInfer.h is; skips the test where there is none."""
    for folder in (os.environ.get("FASTBTS_TENSORRT_INCLUDE"), *FOLDERS):
        if folder and Path(folder, "NvInfer.h").is_file():
            return Path(folder)
    pytest.skip(
        "no NvInfer.h: set FASTBTS_TENSORRT_INCLUDE to `include` of TensorRT, or of "
        "github.com/NVIDIA/TensorRT"
    )


@cache
def library() -> Path:
    """The plugins as TensorRT would load them, but for their kernels, and with `run_plugin`."""
    sources = (ROOT / "tests/simt/plugins.cpp", *SOURCES, *LAUNCHERS)
    return shared_library("plugins", sources, (*WARNINGS, "-isystem", str(header_folder())))


def run_plugin(
    name: str, dtype: str, inputs: list[NDArray[Any]], *, grown: int = 0
) -> NDArray[Any]:
    """Output of the plugin for its inputs, which have the bits of one type.

    See `run_plugin` in plugins.cpp.
    """
    run = ctypes.CDLL(str(library())).run_plugin
    run.restype = ctypes.c_char_p
    sizes = np.array([n for array in inputs for n in array.shape], np.int64)
    ranks = np.array([array.ndim for array in inputs], np.int32)
    data = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
    y = np.full_like(inputs[0], 77)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (ranks, sizes))
    message = run(
        name.encode(),
        DTYPES[dtype],
        len(inputs),
        *pointers,
        grown,
        data,
        ctypes.c_void_p(y.ctypes.data),
    )
    if message is not None:
        raise EmulationError(message.decode())
    return y
