"""The layers of the network, for the native engine: channels-last features (B, D, H, W, C).

The headers in `csrc/ops` define them. On the CPU they are plain loops in float32, to compare with.
On a CUDA device features and weights are float16 and sums float32. `affine` (B, 2, C) float32 has
scale and shift of each channel: where an op takes it, it reads leaky_relu(scale x + shift) in place
of x, so that a normalisation costs no pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.ops.arrays import Array, output_array, stream_handle

COLUMNS, CHANNELS = 32, 16
"""Outputs and inputs of a tile of weights."""


def conv_tiles(weight: NDArray[Any]) -> NDArray[np.float32]:
    """The weights of a convolution as `conv3d` reads them.

    Args:
        weight: (N, C, k, k, k), k 1 or 3.

    Returns:
        (N/32, C/16, k^3, 32, 16) float32, sizes rounded up and filled with zeros.
    """
    n, c, *kernel = weight.shape
    n_all, c_all = -(-n // COLUMNS) * COLUMNS, -(-c // CHANNELS) * CHANNELS
    padded = np.zeros((n_all, c_all, int(np.prod(kernel))), np.float32)
    padded[:n, :c] = weight.reshape(n, c, -1)
    split = padded.reshape(n_all // COLUMNS, COLUMNS, c_all // CHANNELS, CHANNELS, -1)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3))


def upconv_tiles(weight: NDArray[Any]) -> NDArray[np.float32]:
    """The weights of a transposed convolution with kernel 2 and stride 2, for `spread` = 2.

    Args:
        weight: (C, N, 2, 2, 2), as ONNX and torch have it.
    """
    n_in, n_out = weight.shape[:2]
    columns = weight.transpose(2, 3, 4, 1, 0).reshape(8 * n_out, n_in, 1, 1, 1)
    return conv_tiles(columns)


def conv3d_bricks(shape: tuple[int, int, int], stride: int = 1) -> int:
    """T of the `stats` of `conv3d` for results of this shape (D, H, W)."""
    return _C.conv3d_bricks(shape, stride)


def conv3d(
    x: Array,
    tiles: Array,
    *,
    affine: Array | None = None,
    bias: Array | None = None,
    stride: int = 1,
    spread: int = 1,
    out: Array | None = None,
    stats: Array | None = None,
    n_columns: int | None = None,
    n_threads: int = 0,
    stream: Any = None,
) -> Any:
    """A 3D convolution with kernel 3 or 1, or a transposed one with kernel 2 and stride 2.

    Args:
        x: (B, D, H, W, C).
        tiles: From `conv_tiles` or `upconv_tiles`.
        affine: Scale and shift of x, then leaky ReLU, (B, 2, C) float32; None for x as it is.
        bias: (N,) float32; None for none.
        stride: 1, or 2 with kernel 3.
        spread: 2 for a transposed convolution: N is 8 times the channels of `out`.
        out: (B, D', H', W', N / spread^3), any strides; needed on a device.
        stats: (B, N, T, 2) float32 for the sums and sums of squares of the result per brick, T
            from `conv3d_bricks`; None where they are not wanted.
        n_columns: N, where `out` is None.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.

    Returns:
        `out`.
    """
    if out is None:
        size = [spread * ((n - 1) // stride + 1) for n in np.shape(x)[1:4]]
        n_channels = (n_columns or COLUMNS * tiles.shape[0]) // spread**3
        shape = (np.shape(x)[0], *size, n_channels)
        out = output_array("conv3d: out", None, x, shape)
    handle = stream_handle(stream)
    _C.conv3d(x, tiles, affine, bias, stride, spread, out, stats, n_threads, handle)
    return out
