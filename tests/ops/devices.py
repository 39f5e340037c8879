"""The ops on every device there is, behind one face: NumPy arrays in and out, so that tests have one body for all."""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts import DeviceError, ops, reference

REQUIRE_CUDA = os.environ.get("FASTBTS_REQUIRE_CUDA") == "1"
"""Set on machines with a GPU: CUDA tests then fail where they would not be collected."""


def available_devices() -> list[str]:
    """The CPU, and CUDA where it can be used or must be."""
    try:
        ops.n_cuda_devices()
    except DeviceError:
        return ["cpu", "cuda"] if REQUIRE_CUDA else ["cpu"]
    return ["cpu", "cuda"]


class Ops(Protocol):
    """The ops that run on more than one device, as in `fastbts.ops`."""

    def brain_box(self, volume: NDArray[Any], n_threads: int = 0) -> ops.BrainBox: ...

    def normalize(
        self,
        volume: NDArray[Any],
        box: ops.Box,
        size: ops.Size,
        percentiles: tuple[float, float] = (0.1, 99.9),
        n_threads: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]: ...

    def window(
        self, tensor: NDArray[np.float32], origins: NDArray[np.int32], size: ops.Size, *, n_threads: int = 0
    ) -> NDArray[np.float32]: ...

    def blend(
        self,
        logits: NDArray[np.float32],
        origins: NDArray[np.int32],
        weights: reference.Weights,
        total: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None: ...

    def label(
        self,
        logits: NDArray[np.float32],
        offset: ops.Size,
        box: ops.Box,
        thresholds: tuple[float, float, float],
        values: tuple[int, int, int],
        labels: NDArray[np.uint8],
        n_threads: int = 0,
    ) -> ops.RegionCounts: ...


@cache
def cupy() -> Any:
    """CuPy, with an allocation for each array, whose ends compute-sanitizer then sees."""
    library = importlib.import_module("cupy")
    library.cuda.set_allocator(None)
    return library


def put(array: NDArray[Any]) -> Any:
    """Copies an array to the device, strides and all."""
    if array.size == 0:
        return cupy().empty(array.shape, array.dtype)
    low, high = np.lib.array_utils.byte_bounds(array)
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    copy = cupy().asarray(memory)
    return cupy().ndarray(array.shape, array.dtype, memptr=copy.data + (array.ctypes.data - low), strides=array.strides)


class CudaOps:
    """Copies to the first CUDA device, runs there, copies back what was written."""

    def brain_box(self, volume: NDArray[Any], n_threads: int = 0) -> ops.BrainBox:
        return ops.brain_box(put(volume), found=cupy().empty(7 + 2 * len(volume), np.int64))

    def normalize(
        self,
        volume: NDArray[Any],
        box: ops.Box,
        size: ops.Size,
        percentiles: tuple[float, float] = (0.1, 99.9),
        n_threads: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        n = len(volume)
        out = cupy().empty((n, *size), np.float32)
        stats = cupy().empty((n, 4), np.float64)
        scratch = cupy().empty(ops.normalize_scratch(n, box), np.uint8)
        ops.normalize(put(volume), box, size, percentiles, out=out, stats=stats, scratch=scratch)
        return out.get(), stats.get()

    def window(
        self, tensor: NDArray[np.float32], origins: NDArray[np.int32], size: ops.Size, *, n_threads: int = 0
    ) -> NDArray[np.float32]:
        out = cupy().empty((len(origins), len(tensor), *size), np.float32)
        ops.window(put(tensor), put(origins), size, out)
        windows: NDArray[np.float32] = out.get()
        return windows

    def blend(
        self,
        logits: NDArray[np.float32],
        origins: NDArray[np.int32],
        weights: reference.Weights,
        total: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None:
        d, h, w = (put(weight) for weight in weights)
        target = put(total)
        ops.blend(put(logits), put(origins), (d, h, w), target)
        total[...] = target.get()

    def label(
        self,
        logits: NDArray[np.float32],
        offset: ops.Size,
        box: ops.Box,
        thresholds: tuple[float, float, float],
        values: tuple[int, int, int],
        labels: NDArray[np.uint8],
        n_threads: int = 0,
    ) -> ops.RegionCounts:
        target, counts = put(labels), cupy().empty(3, np.int64)
        ops.label(put(logits), offset, box, thresholds, values, target, counts=counts)
        labels[...] = target.get()
        return ops.RegionCounts(*counts.get().tolist())


def on(device: str) -> Ops:
    """The ops on a device."""
    return CudaOps() if device == "cuda" else ops
