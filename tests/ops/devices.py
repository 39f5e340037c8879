"""The ops on every device there is, behind one face: NumPy arrays in and out, so that tests have one body for all."""

from __future__ import annotations

import ctypes
import importlib
import math
import os
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts import DeviceError, ops
from fastbts.ops import reference

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
        self,
        tensor: NDArray[np.float32],
        origins: NDArray[np.int32],
        size: ops.Size,
        *,
        n_threads: int = 0,
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

    def resample(
        self, tensor: NDArray[np.float32], size: ops.Size, n_threads: int = 0
    ) -> NDArray[np.float32]: ...

    def resample_affine(
        self,
        tensor: NDArray[Any],
        matrix: NDArray[np.float64],
        size: ops.Size,
        n_threads: int = 0,
        *,
        nearest: bool = False,
        outside: float = 0.0,
    ) -> NDArray[Any]: ...

    def components(
        self, labels: NDArray[np.uint8], box: ops.Box, min_voxels: int, n_threads: int = 0
    ) -> ops.Parts: ...

    def semantic_project(self, tensor: NDArray[np.float32], n_threads: int = 0) -> ops.Planes: ...

    def semantic_plane(
        self, planes: ops.Planes, weights: ops.PlaneWeights, n_threads: int = 0
    ) -> ops.Planes: ...

    def semantic_lift(
        self, planes: ops.Planes, target: NDArray[np.float32] | None = None, n_threads: int = 0
    ) -> NDArray[np.float32]: ...

    def semantic_bridge(
        self,
        reduced: NDArray[np.float32],
        weights: ops.PlaneWeights,
        target: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None: ...

    def semantic_attention(
        self,
        skip: NDArray[np.float32],
        encoded: NDArray[np.float32],
        decoded: NDArray[np.float32],
        similarity: NDArray[np.float32],
        weights: ops.AttentionWeights,
        out: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None: ...


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
    return cupy().ndarray(
        array.shape,
        array.dtype,
        memptr=copy.data + (array.ctypes.data - low),
        strides=array.strides,
    )


def put_weights(weights: ops.AttentionWeights) -> ops.AttentionWeights:
    *arrays, strength = weights
    return ops.AttentionWeights(*(put(array) for array in arrays), strength)


def empty_planes(n_b: int, n_channels: int, shape: ops.Size) -> ops.Planes:
    """Planes of a volume of this shape, on the device."""
    d, h, w = shape
    return ops.Planes(
        *(cupy().empty((n_b, n_channels, *size), np.float32) for size in ((h, w), (d, w), (d, h)))
    )


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
        self,
        tensor: NDArray[np.float32],
        origins: NDArray[np.int32],
        size: ops.Size,
        *,
        n_threads: int = 0,
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

    def resample(
        self, tensor: NDArray[np.float32], size: ops.Size, n_threads: int = 0
    ) -> NDArray[np.float32]:
        out = cupy().empty((len(tensor), *size), np.float32)
        ops.resample(put(tensor), size, out=out)
        resampled: NDArray[np.float32] = out.get()
        return resampled

    def resample_affine(
        self,
        tensor: NDArray[Any],
        matrix: NDArray[np.float64],
        size: ops.Size,
        n_threads: int = 0,
        *,
        nearest: bool = False,
        outside: float = 0.0,
    ) -> NDArray[Any]:
        dtype = np.uint8 if nearest and tensor.dtype == np.uint8 else np.float32
        out = cupy().empty((len(tensor), *size), dtype)
        ops.resample_affine(put(tensor), matrix, size, nearest=nearest, outside=outside, out=out)
        resampled: NDArray[Any] = out.get()
        return resampled

    def components(
        self, labels: NDArray[np.uint8], box: ops.Box, min_voxels: int, n_threads: int = 0
    ) -> ops.Parts:
        target, counts = put(labels), cupy().empty(258, np.int64)
        scratch = cupy().empty((2, math.prod(stop - start for start, stop in box)), np.int32)
        ops.components(target, box, min_voxels, counts=counts, scratch=scratch)
        labels[...] = target.get()
        n_before, n_after, *n_removed = counts.get().tolist()
        return ops.Parts(n_before, n_after, {label: n for label, n in enumerate(n_removed) if n})

    def semantic_project(self, tensor: NDArray[np.float32], n_threads: int = 0) -> ops.Planes:
        n_b, n_r, d, h, w = tensor.shape
        planes = ops.semantic_project(put(tensor), out=empty_planes(n_b, 2 * n_r, (d, h, w)))
        return ops.Planes(*(plane.get() for plane in planes))

    def semantic_plane(
        self, planes: ops.Planes, weights: ops.PlaneWeights, n_threads: int = 0
    ) -> ops.Planes:
        n_b, n_c = len(planes.z), len(weights.expand)
        out = empty_planes(n_b, n_c, (*planes.x.shape[2:], planes.z.shape[3]))
        ops.semantic_plane(
            ops.Planes(*map(put, planes)), ops.PlaneWeights(*map(put, weights)), out=out
        )
        return ops.Planes(*(plane.get() for plane in out))

    def semantic_lift(
        self, planes: ops.Planes, target: NDArray[np.float32] | None = None, n_threads: int = 0
    ) -> NDArray[np.float32]:
        there = ops.Planes(*map(put, planes))
        if target is None:
            volume = cupy().empty((*planes.x.shape, planes.z.shape[3]), np.float32)
            lifted: NDArray[np.float32] = ops.semantic_lift(there, out=volume).get()
            return lifted
        target[...] = ops.semantic_lift(there, put(target)).get()
        return target

    def semantic_bridge(
        self,
        reduced: NDArray[np.float32],
        weights: ops.PlaneWeights,
        target: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None:
        n_b, n_r, *size = reduced.shape
        planes, seen = (empty_planes(n_b, n, tuple(size)) for n in (2 * n_r, len(weights.expand)))
        there = put(target)
        ops.semantic_bridge(
            put(reduced), ops.PlaneWeights(*map(put, weights)), there, planes=planes, seen=seen
        )
        target[...] = there.get()

    def semantic_attention(
        self,
        skip: NDArray[np.float32],
        encoded: NDArray[np.float32],
        decoded: NDArray[np.float32],
        similarity: NDArray[np.float32],
        weights: ops.AttentionWeights,
        out: NDArray[np.float32],
        n_threads: int = 0,
    ) -> None:
        target = put(out)
        ops.semantic_attention(
            put(skip), put(encoded), put(decoded), put(similarity), put_weights(weights), target
        )
        out[...] = target.get()


def on(device: str) -> Ops:
    """The ops on a device."""
    return CudaOps() if device == "cuda" else ops
