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


LINEAR, DHWC8, DHWC = 0, 6, 12
"""Values of TensorRT's TensorFormat."""

N_FEATURES = {"SemanticBridge": 2, "SemanticAttention": 3}
"""Inputs that may be channels-last."""


def run_plugin(
    name: str,
    dtype: str,
    inputs: list[NDArray[Any]],
    *,
    grown: int = 0,
    channels_last: bool = False,
) -> NDArray[Any]:
    """Output of the plugin for its inputs, which have the bits of one type.

    With `channels_last` it gets features, and writes its output, in kDHWC8, or kDHWC in float32.
    Padding of inputs is full of NaN; that of the output must become zero. See `run_plugin` in
    plugins.cpp.
    """
    run = ctypes.CDLL(str(library())).run_plugin
    run.restype = ctypes.c_char_p
    sizes = np.array([n for array in inputs for n in array.shape], np.int64)
    ranks = np.array([array.ndim for array in inputs], np.int32)
    formats = np.full(len(inputs), LINEAR, np.int32)
    arrays, y = list(inputs), np.full_like(inputs[0], 77)
    if channels_last:
        n_features = N_FEATURES.get(name, 0)
        formats[:n_features] = DHWC if dtype == "float32" else DHWC8
        arrays[:n_features] = [_channels_last(array) for array in inputs[:n_features]]
        y = np.full_like(arrays[0], 77)
    data = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (formats, ranks, sizes))
    address = ctypes.c_void_p(y.ctypes.data)
    message = run(name.encode(), DTYPES[dtype], len(inputs), *pointers, grown, data, address)
    if message is not None:
        raise EmulationError(message.decode())
    if not channels_last:
        return y
    n_channels = inputs[0].shape[1]
    assert (y[..., n_channels:] == 0).all()
    return np.ascontiguousarray(np.moveaxis(y[..., :n_channels], -1, 1))


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """A tensor (B, C, D, H, W) as (B, D, H, W, C), in 16 bits with C rounded up to 8."""
    n_padding = -array.shape[1] % 8 if array.itemsize == 2 else 0
    nan = np.nan if array.dtype.kind == "f" else 0xFFFF
    width = [(0, 0)] * 4 + [(0, n_padding)]
    return np.pad(np.moveaxis(array, 1, -1), width, constant_values=nan)
