"""What ops do, by NumPy and torch: peers of `bench_ops`. `arrays` is one of the two where both know the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops


def numpy_box(volume: NDArray[Any]) -> ops.Box:
    brain = (volume != 0).any(axis=0)
    sides = [np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    d, h, w = ((int(side[0]), int(side[-1]) + 1) for side in sides)
    return d, h, w


def numpy_normalize(volume: NDArray[Any]) -> NDArray[np.float32]:
    cut = volume[(slice(None), *(slice(*side) for side in numpy_box(volume)))].astype(np.float32)
    brain = (cut != 0).any(axis=0)
    out = np.zeros(cut.shape, np.float32)
    for image, target in zip(cut, out, strict=True):
        values = image[brain]
        values = np.clip(values, *np.percentile(values, (0.1, 99.9), method="inverted_cdf"))
        target[brain] = (values - values.mean()) / values.std()
    return out


def numpy_window(tensor: NDArray[Any], origins: NDArray[Any], out: NDArray[Any]) -> None:
    size = out.shape[-1]
    for window, (d, h, w) in zip(out, origins.tolist(), strict=True):
        window[:] = tensor[:, d : d + size, h : h + size, w : w + size]


def blend_with(arrays: Any, logits: Any, origins: NDArray[Any], weight: Any, total: Any) -> None:
    """The same in NumPy or torch, with the product of the weights made beforehand."""
    size = logits.shape[-1]
    for part, (d, h, w) in zip(logits, origins.tolist(), strict=True):
        total[:, d : d + size, h : h + size, w : w + size] += arrays.multiply(part, weight)


def label_with(arrays: Any, logits: Any, labels: Any, where: Any) -> None:
    wt, tc, et = 1 / (1 + arrays.exp(-logits)) >= 0.5
    inside = labels[where]
    inside[:] = 0
    for region, value in ((wt, 2), (tc, 1), (et, 4)):
        inside[region] = value


def project_with_torch(torch: Any, tensor: Any) -> list[Any]:
    return [torch.cat([tensor.mean(axis), tensor.amax(axis)], dim=1) for axis in (2, 3, 4)]


def bridge_tensors(weights: Sequence[Any]) -> list[Any]:
    """`PlaneWeights`, as tensors, in the shapes that `bridge_with_torch` takes."""
    conv, bias, view, expand = weights
    return [conv, bias, view[:, :, None, None], expand[:, :, None, None]]


def see_with_torch(torch: Any, planes: Any, weights: Any) -> list[Any]:
    """What the bridge sees in its three planes."""
    functional, (conv, bias, view, expand) = torch.nn.functional, weights
    hidden = [
        functional.conv2d(plane, conv, bias, padding=1) + v
        for plane, v in zip(planes, view, strict=True)
    ]
    return [functional.conv2d(functional.leaky_relu(h, 0.01), expand) for h in hidden]


def bridge_with_torch(torch: Any, reduced: Any, x: Any, weights: Any) -> Any:
    """`training.model.bridge` after its first convolution."""
    z, y, w = see_with_torch(torch, project_with_torch(torch, reduced), weights)
    return x + (z[:, :, None] + y[:, :, :, None] + w[..., None]) / 3


def attention_tensors(weights: Sequence[Any]) -> list[Any]:
    """The arrays of `AttentionWeights`, as tensors, in the shapes that `attend_with_torch` takes."""
    w_x, bias, w_g, w_s, w_a = weights
    voxel = (..., None, None, None)  # a matrix over channels is a convolution of one voxel
    return [w_x[voxel], bias, w_g[voxel], w_s[voxel], w_a[:, None]]


def attend_with_torch(torch: Any, inputs: Any, weights: Any, strength: float, out: Any) -> Any:
    """`training.model.attention`, into the buffer of the concatenation."""
    functional, (skip, encoded, decoded, similarity), (w_x, bias, w_g, w_s, w_a) = (
        torch.nn.functional,
        inputs,
        weights,
    )
    hidden = functional.conv3d(encoded, w_x, bias) + functional.conv3d(decoded, w_g)
    up = functional.interpolate(similarity, size=encoded.shape[2:], mode="trilinear")
    hidden = functional.leaky_relu(hidden + functional.conv3d(up, w_s), 0.01)
    mask = functional.conv_transpose3d(hidden, w_a, stride=2).sigmoid()
    out[:] = skip * (1 + strength * (2 * mask - 1))
    return out
