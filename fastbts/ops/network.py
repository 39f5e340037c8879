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


def conv3d_brick(shape: tuple[int, ...], stride: int = 1) -> int:
    """The best `brick` of `conv3d` for results of this shape (D, H, W), before they are spread.

    Volumes of up to 2^14 voxels would have fewer large bricks than a GPU has multiprocessors.
    """
    return 64 if stride == 2 or int(np.prod(shape)) <= 1 << 14 else 256


def conv3d_bricks(shape: tuple[int, int, int], brick: int) -> int:
    """T of the `stats` of `conv3d` for results of this shape (D, H, W)."""
    return _C.conv3d_bricks(shape, brick)


def conv3d(
    x: Array,
    tiles: Array,
    *,
    affine: Array | None = None,
    bias: Array | None = None,
    stride: int = 1,
    spread: int = 1,
    brick: int | None = None,
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
        brick: Voxels that a block computes, 64, or 256 with stride 1; None for `conv3d_brick`.
        out: (B, D', H', W', N / spread^3), any strides; needed on a device.
        stats: (B, N, T, 2) float32 for the sums and sums of squares of the result per brick, T
            from `conv3d_bricks`; None where they are not wanted.
        n_columns: N, where `out` is None.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.

    Returns:
        `out`.
    """
    size = tuple((n - 1) // stride + 1 for n in x.shape[1:4])
    if out is None:
        n_channels = (n_columns or COLUMNS * tiles.shape[0]) // spread**3
        shape = (x.shape[0], *(spread * n for n in size), n_channels)
        out = output_array("conv3d: out", None, x, shape)
    handle = stream_handle(stream)
    brick = conv3d_brick(size, stride) if brick is None else brick
    _C.conv3d(x, tiles, affine, bias, stride, spread, brick, out, stats, n_threads, handle)
    return out


def fold_stats(
    stats: Array,
    n_voxels: int,
    *,
    weight: Array | None = None,
    bias: Array | None = None,
    film: Array | None = None,
    affine: Array,
    mean: Array | None = None,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """An instance normalisation, and FiLM after it, as scale and shift of the next layer.

    Args:
        stats: Sums of `conv3d`, (B, C, T, 2) float32.
        n_voxels: How many voxels were added up.
        weight: (C,) float32, and `bias` too; None for 1 and 0.
        bias: See `weight`.
        film: Relative scale and shift, (B, 2, C) float32; None for none.
        affine: (B, 2, C) float32, written.
        mean: (B, C) float32, written; None where it is not wanted.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    handle = stream_handle(stream)
    _C.fold_stats(stats, n_voxels, weight, bias, film, affine, mean, n_threads, handle)


def activate(
    x: Array,
    *,
    affine: Array | None = None,
    out: Array,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """leaky_relu(scale x + shift), or a copy into another layout or type.

    Args:
        x: (B, D, H, W, C), any strides.
        affine: (B, 2, C) float32; None for a copy.
        out: The same shape, any strides, written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.activate(x, affine, out, n_threads, stream_handle(stream))


def pack(
    volume: Array,
    patch: int,
    *,
    gate: Array | None = None,
    gate_bias: Array | None = None,
    background: Array | None = None,
    step: float = 1,
    out: Array,
    scratch: Array | None = None,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """The network's input: voxels into channels, and the pixel fusion.

    Args:
        volume: (B, M, D, H, W) float32.
        patch: p, 1 or 2.
        gate: (M, M) float32, and the other three too; None for no fusion.
        gate_bias: (M,) float32.
        background: (M,) float32.
        step: What 1 stands for in int8.
        out: (B, D/p, H/p, W/p, M p^3), any strides, written; on the CPU float32, uint16 with the
            bits of bfloat16, or int8.
        scratch: (2, B, M) float32, written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    handle = stream_handle(stream)
    _C.pack(volume, patch, gate, gate_bias, background, step, out, scratch, n_threads, handle)


def unpack(x: Array, patch: int, *, out: Array, n_threads: int = 0) -> None:
    """The inverse of `pack` without fusion: channels into voxels. On the CPU only.

    Args:
        x: (B, D/p, H/p, W/p, K p^3), any strides; float32, or uint16 with the bits of bfloat16.
        patch: p, 1 or 2.
        out: (B, K, D, H, W) float32, written.
        n_threads: 0 for all CPUs.
    """
    _C.unpack(x, patch, out, n_threads, 0)


ACTIVATIONS = {None: 0, "leaky_relu": 1, "gelu": 2}
"""Of `linear`."""


def linear(
    x: Array,
    weight: Array,
    *,
    bias: Array | None = None,
    add: Array | None = None,
    activation: str | None = None,
    out: Array,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """activation(x weight^T + bias + add), for a few vectors; all float32.

    Args:
        x: (N, I).
        weight: (J, I).
        bias: (J,); None for none.
        add: (N, J), may be `out`; None for none.
        activation: One of `ACTIVATIONS`.
        out: (N, J), written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    kind = ACTIVATIONS[activation]
    _C.linear(x, weight, bias, add, kind, out, n_threads, stream_handle(stream))


def similarity(
    image: Array,
    text: Array,
    scale: float,
    bias: Array,
    *,
    out: Array,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """scale cos(image, text) + bias: where the image matches each prompt.

    Args:
        image: (B, D, H, W, E).
        text: (K, E) float32, K at most 8.
        scale: A number.
        bias: (K,) float32.
        out: (B, K, D, H, W), any strides, written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.similarity(image, text, scale, bias, out, n_threads, stream_handle(stream))


def text_reads(
    query: Array,
    key: Array,
    value: Array,
    *,
    out: Array,
    scratch: Array,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """Attention of text vectors to voxels: softmax(query key / sqrt(E)) value.

    Args:
        query: (B, K, E) float32.
        key: (B, D, H, W, E).
        value: (B, D, H, W, E).
        out: (B, K, E) float32, written.
        scratch: (B, K, D H W) float32, written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.text_reads(query, key, value, out, scratch, n_threads, stream_handle(stream))


def image_reads(
    query: Array,
    key: Array,
    value: Array,
    *,
    out: Array,
    n_threads: int = 0,
    stream: Any = None,
) -> None:
    """Attention of voxels to text vectors: softmax(query key / sqrt(E)) value.

    Args:
        query: (B, D, H, W, E).
        key: (B, K, E) float32, K at most 8.
        value: (B, K, E) float32.
        out: (B, D, H, W, E), written.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.image_reads(query, key, value, out, n_threads, stream_handle(stream))
