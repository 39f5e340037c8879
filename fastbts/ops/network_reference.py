"""Reference implementation of `fastbts.ops.network` in NumPy float64, to compare with.

Arguments are those of the ops, but weights are as torch and ONNX have them.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray


def activated(x: NDArray[Any], affine: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """leaky_relu(scale x + shift) of (B, D, H, W, C), or x without `affine` (B, 2, C)."""
    if affine is None:
        return x.astype(np.float64)
    scale, shift = affine.astype(np.float64)[:, :, None, None, None].swapaxes(0, 1)
    y = x * scale + shift
    return np.where(y > 0, y, 0.01 * y)


def conv3d(
    x: NDArray[Any],
    weight: NDArray[Any],
    affine: NDArray[np.float32] | None = None,
    bias: NDArray[np.float32] | None = None,
    stride: int = 1,
) -> NDArray[np.float64]:
    """Returns the convolution of (B, D, H, W, C) by (N, C, k, k, k) with padding k // 2."""
    kernel = weight.shape[-1]
    border = (kernel // 2, kernel // 2)
    padded = np.pad(activated(x, affine), ((0, 0), border, border, border, (0, 0)))
    size = [(n - 1) // stride + 1 for n in x.shape[1:4]]
    result = np.zeros((x.shape[0], *size, weight.shape[0]))
    for tap in product(range(kernel), repeat=3):
        part: Any = tuple(
            slice(k, k + stride * (n - 1) + 1, stride) for k, n in zip(tap, size, strict=True)
        )
        where: Any = (slice(None), slice(None), *tap)
        w = weight[where].astype(np.float64)
        result += np.einsum("nc,bdhwc->bdhwn", w, padded[(slice(None), *part)])
    return result if bias is None else result + bias


def upconv(
    x: NDArray[Any],
    weight: NDArray[Any],
    affine: NDArray[np.float32] | None = None,
    bias: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Returns the transposed convolution, kernel 2, stride 2, by (C, N, 2, 2, 2)."""
    exact = weight.astype(np.float64)
    children = np.einsum("cnijk,bdhwc->bdihjwkn", exact, activated(x, affine))
    b, d, _, h, _, w, _, n = children.shape
    result: NDArray[np.float64] = children.reshape(b, 2 * d, 2 * h, 2 * w, n)
    return result if bias is None else result + bias


def fold_stats(
    y: NDArray[Any],
    weight: NDArray[np.float32] | None = None,
    bias: NDArray[np.float32] | None = None,
    film: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Returns scale and shift (B, 2, C) that normalise y (B, D, H, W, C), then apply FiLM."""
    axes = (1, 2, 3)
    scale = 1 / np.sqrt(y.var(axes, dtype=np.float64) + 1e-5)
    scale = scale if weight is None else weight * scale
    shift = -y.mean(axes, dtype=np.float64) * scale
    shift = shift if bias is None else bias + shift
    if film is not None:
        factor, more = film.astype(np.float64).swapaxes(0, 1)
        scale, shift = scale * (1 + factor), shift * (1 + factor) + more
    result: NDArray[np.float64] = np.stack([scale, shift], 1)
    return result


def pack(
    volume: NDArray[np.float32],
    patch: int,
    gate: NDArray[np.float32] | None = None,
    gate_bias: NDArray[np.float32] | None = None,
    background: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Returns the input (B, D/p, H/p, W/p, M p^3) of a volume (B, M, D, H, W)."""
    b, m, d, h, w = volume.shape
    p = patch
    x = volume.astype(np.float64)
    if gate is not None and gate_bias is not None and background is not None:
        present = (volume[:, :, ::p, ::p, ::p] != 0).any((2, 3, 4)).astype(np.float64)
        gains = 2 / (1 + np.exp(-(present @ gate.T.astype(np.float64) + gate_bias)))
        empty = background.astype(np.float64)[:, None, None, None]
        x = np.where(volume == 0, empty, x * gains[..., None, None, None])
    blocks = x.reshape(b, m, d // p, p, h // p, p, w // p, p).transpose(0, 2, 4, 6, 1, 3, 5, 7)
    return blocks.reshape(b, d // p, h // p, w // p, m * p**3)


def unpack(x: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """Returns the voxels (B, K, D, H, W) of channels (B, D/p, H/p, W/p, K p^3)."""
    b, d, h, w, c = x.shape
    p = patch
    blocks = x.reshape(b, d, h, w, c // p**3, p, p, p).transpose(0, 4, 1, 5, 2, 6, 3, 7)
    return blocks.reshape(b, c // p**3, d * p, h * p, w * p)


def similarity(
    image: NDArray[Any], text: NDArray[np.float32], scale: float, bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns maps (B, K, D, H, W)."""
    x, t = image.astype(np.float64), text.astype(np.float64)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-12)
    t = t / np.linalg.norm(t, axis=-1, keepdims=True).clip(1e-12)
    return scale * np.einsum("bdhwe,ke->bkdhw", x, t) + bias[:, None, None, None]


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights along the last axis."""
    exp: NDArray[np.float64] = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def attend(query: NDArray[Any], key: NDArray[Any], value: NDArray[Any]) -> NDArray[np.float64]:
    """softmax(query key^T / sqrt(E)) value: (B, N, E), (B, L, E), (B, L, E) -> (B, N, E)."""
    exact = query.astype(np.float64), key.astype(np.float64).swapaxes(1, 2)
    weights = softmax(exact[0] @ exact[1] / np.sqrt(query.shape[-1]))
    result: NDArray[np.float64] = weights @ value.astype(np.float64)
    return result
