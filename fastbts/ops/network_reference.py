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
        part = tuple(
            slice(k, k + stride * (n - 1) + 1, stride) for k, n in zip(tap, size, strict=True)
        )
        w = weight[(slice(None), slice(None), *tap)].astype(np.float64)
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
