"""The ops inside the network: semantic bridge and semantic attention.

Networks run them in the inference runtime; these are for other programs, and for tests. The headers
`csrc/ops/semantic_bridge.h` and `semantic_attention.h` define them. On a CUDA device features may
also be channels-last, (B, D, H, W, C) in memory, if all of a call are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.ops.arrays import Array, output_array, stream_handle

__all__ = [
    "AttentionWeights",
    "BridgeWeights",
    "semantic_attention",
    "semantic_bridge",
    "semantic_bridge_scratch",
]


class BridgeWeights(NamedTuple):
    """Weights of `semantic_bridge`, float32.

    Attributes:
        conv: (R, 2R, 3, 3), the convolution of the planes.
        bias: (R,), of the convolution.
        axis_bias: (3, R), added for the planes along D, H, W.
        expand: (C, R), from the convolution to the channels of the volume.
    """

    conv: Array
    bias: Array
    axis_bias: Array
    expand: Array


class AttentionWeights(NamedTuple):
    """Weights of `semantic_attention` with J hidden channels, float32.

    Attributes:
        w_x: (J, C'), applied to the encoder's features.
        bias: (J,).
        w_g: (J, C'), applied to the decoder's features.
        w_s: (J, K), applied to the similarity maps.
        w_a: (J, 2, 2, 2), from hidden channels to the eight voxels inside one at half
            resolution.
        strength: lambda; with 0 the skip connection passes unchanged.
    """

    w_x: Array
    bias: Array
    w_g: Array
    w_s: Array
    w_a: Array
    strength: float


def semantic_bridge(
    x: Array,
    reduced: Array,
    weights: BridgeWeights,
    n_threads: int = 0,
    *,
    out: Array | None = None,
    scratch: Array | None = None,
    stream: Any = None,
) -> NDArray[np.float32]:
    """Adds to a volume the 2D convolutions of its projections along D, H and W.

    Args:
        x: (B, C, D, H, W) float32.
        reduced: x with fewer channels, which is projected, (B, R, D, H, W) float32 without NaN.
        weights: See `BridgeWeights`.
        n_threads: 0 for all CPUs.
        out: (B, C, D, H, W) float32 to write into, may be `x` itself; needed on a device.
        scratch: (n,) float32, n from `semantic_bridge_scratch`; needed on a device, unused on
            the CPU.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The sum, (B, C, D, H, W) float32.
    """
    out = output_array("semantic_bridge: out", out, x, np.shape(x))
    _C.semantic_bridge(x, reduced, *weights, out, scratch, n_threads, stream_handle(stream))
    return out


def semantic_bridge_scratch(shape: tuple[int, int, int, int, int], n_channels: int) -> int:
    """Number of scratch elements that `semantic_bridge` needs on a device.

    Args:
        shape: That of `reduced`, (B, R, D, H, W).
        n_channels: C of `x`.
    """
    return _C.semantic_bridge_scratch(shape, n_channels)


def semantic_attention(
    skip: Array,
    encoded: Array,
    decoded: Array,
    similarity: Array,
    weights: AttentionWeights,
    n_threads: int = 0,
    *,
    out: Array | None = None,
    stream: Any = None,
) -> NDArray[np.float32]:
    """Weights a skip connection voxel by voxel, by an attention mask of the level below.

    Args:
        skip: (B, C, D, H, W) float32.
        encoded: The encoder's next level, (B, C', D/2, H/2, W/2) float32.
        decoded: The decoder's features before their upsampling, same shape.
        similarity: Text maps on a grid of any size, (B, K, d, h, w) float32; K may be 0.
        weights: See `AttentionWeights`.
        n_threads: 0 for all CPUs.
        out: (B, C, D, H, W) float32 to write into, may be `skip` itself or channels of a larger
            buffer; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The weighted skip connection, (B, C, D, H, W) float32.
    """
    out = output_array("semantic_attention: out", out, skip, np.shape(skip))
    handle = stream_handle(stream)
    _C.semantic_attention(skip, encoded, decoded, similarity, *weights, out, n_threads, handle)
    return out
