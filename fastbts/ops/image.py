"""The ops from images to tensors, and those of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.errors import OptionsError
from fastbts.ops.arrays import Array, is_on_device, output_array, stream_handle
from fastbts.ops.packing import Packing

__all__ = [
    "Box",
    "BrainBox",
    "Size",
    "blend",
    "brain_box",
    "n_cuda_devices",
    "normalize",
    "normalize_scratch",
    "queue_brain_box",
    "resample",
    "resample_affine",
    "window",
]

Size = tuple[int, int, int]
"""Voxels along (D, H, W)."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open bounds in voxels along (D, H, W)."""


@dataclass(frozen=True)
class BrainBox:
    """Where the brain is, and counts of voxels.

    Attributes:
        bounds: Tight box around the brain; all zeros where there is none.
        n_brain: Voxels where any modality is non-zero.
        n_nonfinite: NaN or infinite voxels of each modality.
        n_nonzero: Non-zero voxels of each modality; NaN counts as non-zero.
    """

    bounds: Box
    n_brain: int
    n_nonfinite: tuple[int, ...]
    n_nonzero: tuple[int, ...]

    @property
    def size(self) -> Size:
        """Voxels of the box along (D, H, W)."""
        (d0, d1), (h0, h1), (w0, w1) = self.bounds
        return d1 - d0, h1 - h0, w1 - w0

    @classmethod
    def of(cls, found: Sequence[int]) -> BrainBox:
        """From the numbers that the op writes."""
        d0, d1, h0, h1, w0, w1, n_brain, *counts = found
        half = len(counts) // 2
        return cls(
            ((d0, d1), (h0, h1), (w0, w1)), n_brain, tuple(counts[:half]), tuple(counts[half:])
        )


def n_cuda_devices() -> int:
    """Number of CUDA devices, at least one.

    Raises:
        DeviceError: Says why there is none: no driver, no device, or a build without CUDA.
    """
    return _C.n_cuda_devices()


def brain_box(
    volume: Array, n_threads: int = 0, *, found: Array | None = None, stream: Any = None
) -> BrainBox:
    """Finds the brain of a skull-stripped case: voxels where any modality is non-zero.

    Args:
        volume: Intensities, (M, D, H, W), (u)int8-64 or float32/64 in native byte order, any
            strides.
        n_threads: 0 for all CPUs.
        found: (7 + 2M,) int64, written: bounds, n_brain, n_nonfinite, n_nonzero; needed on a
            device.
        stream: CUDA stream, for arrays on a device; waited for.
    """
    found = output_array(
        "brain_box: found", found, volume, (7 + 2 * (*np.shape(volume), 0)[0],), np.int64
    )
    queue_brain_box(volume, found, n_threads, stream=stream)
    if is_on_device(found):
        _C.cuda_synchronize(stream_handle(stream))
    return BrainBox.of(found.tolist())


def queue_brain_box(volume: Array, found: Array, n_threads: int = 0, *, stream: Any = None) -> None:
    """Writes the numbers of `brain_box`; on a device without a wait. See `BrainBox.of`."""
    _C.brain_box(volume, found, n_threads, stream_handle(stream))


def normalize(
    volume: Array,
    box: Box,
    size: Size,
    percentiles: tuple[float, float] = (0.1, 99.9),
    n_threads: int = 0,
    *,
    packing: Packing | None = None,
    out: Array | None = None,
    stats: Array | None = None,
    scratch: Array | None = None,
    stream: Any = None,
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Clips each modality at percentiles of its brain voxels, z-scores it, and centres the box.

    Brain voxels are those inside the box where any modality is non-zero; the rest of the tensor is
    zero. The percentiles are exact values of the image (inverted CDF); mean and population std are
    those of the clipped values, in float64. A modality that is constant over the brain has std 0
    and becomes 0.

    Args:
        volume: Intensities, (M, D, H, W), (u)int8-64 or float32/64 in native byte order, any
            strides.
        box: Part of the volume to use, usually `brain_box(volume).bounds`.
        size: (D', H', W') of the tensor, at least that of the box, which begins at
            (size - box) // 2.
        percentiles: Lower and upper, in per cent.
        n_threads: 0 for all CPUs.
        packing: Writes the tensor as `network.pack` would pack it. On the CPU only.
        out: (M, D', H', W') float32 to write into, or as `packing` says; needed on a device.
        stats: (M, 4) float64 to write into; needed on a device.
        scratch: uint8, `normalize_scratch` bytes; needed on a device, unused on the CPU.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The tensor, (M, D', H', W') float32 or as `packing` says, and (M, 4) float64: lo, hi, mean,
        std of each modality.

    Raises:
        InputError: Also where brain voxels are NaN or infinite. On a device mean and std of such a
            modality are NaN instead.
    """
    n_modalities, packed = np.shape(volume)[:1], packing or Packing(1)
    shape = packed.shape((*n_modalities, 0)[0], size)
    out = output_array("normalize: out", out, volume, shape, packed.dtype)
    stats = output_array("normalize: stats", stats, volume, (*n_modalities, 4), np.float64)
    _C.normalize(
        volume,
        box,
        percentiles,
        packed.patch,
        packed.fusion.get("gate"),
        packed.fusion.get("gate_bias"),
        packed.fusion.get("background"),
        packed.step,
        out,
        stats,
        scratch,
        n_threads,
        stream_handle(stream),
    )
    return out, stats


def normalize_scratch(n_modalities: int, box: Box) -> int:
    """Bytes of scratch that `normalize` needs on a device for this box."""
    return _C.normalize_scratch(n_modalities, math.prod(stop - start for start, stop in box))


def window(
    tensor: Array,
    origins: Array,
    size: Size,
    n_threads: int = 0,
    *,
    out: Array | None = None,
    stream: Any = None,
) -> NDArray[np.float32]:
    """Cuts windows out of a tensor; voxels outside it are zero.

    Args:
        tensor: (M, D, H, W) float32.
        origins: First voxel of each window, (B, 3) int32; windows may begin or end outside the
            tensor.
        size: (d, h, w) of a window.
        n_threads: 0 for all CPUs.
        out: (B, M, d, h, w) float32 to write into, any strides; needed on a device, where it may be
            of another float type than tensor.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The windows, (B, M, d, h, w) float32.
    """
    out = output_array(
        "window: out", out, tensor, (*np.shape(origins)[:1], *np.shape(tensor)[:1], *size)
    )
    _C.window(tensor, origins, out, n_threads, stream_handle(stream))
    return out


def blend(
    logits: Array,
    origins: Array,
    weights: tuple[Array, Array, Array],
    total: Array,
    n_threads: int = 0,
    *,
    stream: Any = None,
) -> None:
    """Adds weighted window logits into a volume, in float32.

    total[k, o + p] += weights[0][b, p0] * weights[1][b, p1] * weights[2][b, p2] * logits[b, k, p],
    windows in the order of b; what a window covers outside the volume is ignored.

    Args:
        logits: (B, K, d, h, w) float32.
        origins: First voxel of each window, (B, 3) int32.
        weights: (B, d), (B, h) and (B, w) float32; their product, summed over all windows, is 1 in
            every voxel.
        total: (K, D, H, W) float32, added to.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.blend(logits, origins, weights, total, n_threads, stream_handle(stream))


def resample(
    tensor: Array, size: Size, n_threads: int = 0, *, out: Array | None = None, stream: Any = None
) -> NDArray[np.float32]:
    """Resamples (C, D, H, W) to (C, *size) by linear interpolation.

    Along D, then H, then W, in float32.

    The outer faces of the grid stay where they are (voxel centres at (i + 1/2) n / n' - 1/2), and
    beyond the outermost centres the edge value is used. An axis of the same size keeps its values.

    Args:
        tensor: (C, D, H, W) float32, finite.
        size: (D', H', W').
        n_threads: 0 for all CPUs.
        out: (C, D', H', W') float32 to write into, not in the memory of tensor; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The resampled tensor, (C, D', H', W') float32.
    """
    out = output_array("resample: out", out, tensor, (*np.shape(tensor)[:1], *size))
    _C.resample(tensor, out, n_threads, stream_handle(stream))
    return out


def resample_affine(
    tensor: Array,
    matrix: NDArray[np.floating[Any]],
    size: Size,
    n_threads: int = 0,
    *,
    nearest: bool = False,
    outside: float = 0.0,
    out: Array | None = None,
    stream: Any = None,
) -> NDArray[Any]:
    """Resamples (C, D, H, W) onto a grid of any position and orientation in the tensor's.

    Between the outermost voxel centres and the outer faces of the tensor's grid the edge value
    is used. Positions are float64, values are interpolated in float32.

    Args:
        tensor: (C, D, H, W), real, any strides, finite.
        matrix: (3, 4) or (4, 4): from a voxel (d, h, w, 1) of the result to its place in the
            tensor's voxels, whose centres are at 0, 1, ...
        size: (D', H', W').
        n_threads: 0 for all CPUs.
        nearest: Take the nearest voxel's value; else interpolate trilinearly.
        outside: Value beyond the outer faces.
        out: (C, D', H', W') float32 to write into, or uint8 for the nearest voxels of a uint8
            tensor, any strides, not in the memory of tensor; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The resampled tensor, float32; uint8 for the nearest voxels of a uint8 tensor.
    """
    rows = np.asarray(matrix, np.float64)
    if rows.shape not in ((3, 4), (4, 4)):
        raise OptionsError(
            f"resample_affine: matrix: expected shape (3, 4) or (4, 4), got {rows.shape}"
        )
    dtype = np.uint8 if nearest and getattr(tensor, "dtype", None) == np.uint8 else np.float32
    out = output_array("resample_affine: out", out, tensor, (*np.shape(tensor)[:1], *size), dtype)
    _C.resample_affine(
        tensor, rows[:3].tolist(), nearest, outside, out, n_threads, stream_handle(stream)
    )
    return out
