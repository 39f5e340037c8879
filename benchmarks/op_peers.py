"""The same results as the ops, by NumPy, SciPy, MONAI and torch.

`arrays` is NumPy or torch, where both have the same functions. A function `torch_OP` makes a job
from the op's arguments as tensors; modules are arguments, as they may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops

Arguments = dict[str, Any]
Job = Callable[[], Any]


def numpy_box(volume: NDArray[Any]) -> ops.Box:
    brain = (volume != 0).any(axis=0)
    sides = [np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    d, h, w = ((int(side[0]), int(side[-1]) + 1) for side in sides)
    return d, h, w


def numpy_normalize(volume: NDArray[Any]) -> NDArray[np.float32]:
    box = numpy_box(volume)
    cut = volume[(slice(None), *(slice(*side) for side in box))].astype(np.float32)
    brain = (cut != 0).any(axis=0)
    out = np.zeros(cut.shape, np.float32)
    for image, target in zip(cut, out, strict=True):
        values = image[brain]
        values = np.clip(values, *np.percentile(values, (0.1, 99.9), method="inverted_cdf"))
        target[brain] = (values - values.mean()) / values.std()
    return out


def monai_normalize(transforms: Any, volume: NDArray[Any]) -> Job:
    """Without the percentiles: a result to be timed, not compared."""
    crop = transforms.CropForeground()
    scale = transforms.NormalizeIntensity(nonzero=True, channel_wise=True)
    chain = transforms.Compose([crop, scale])

    def job() -> None:
        chain(volume.astype(np.float32))

    return job


def numpy_window(
    tensor: NDArray[Any], origins: NDArray[Any], out: NDArray[Any]
) -> NDArray[np.float32]:
    size = out.shape[-1]
    for window, (d, h, w) in zip(out, origins.tolist(), strict=True):
        window[:] = tensor[:, d : d + size, h : h + size, w : w + size]
    return out


def blend_with(arrays: Any, logits: Any, origins: NDArray[Any], weight: Any, total: Any) -> Any:
    """With the product of the weights, which all windows share, computed beforehand."""
    size = logits.shape[-1]
    for part, (d, h, w) in zip(logits, origins.tolist(), strict=True):
        total[:, d : d + size, h : h + size, w : w + size] += arrays.multiply(part, weight)
    return total


def torch_blend(torch: Any, given: Arguments) -> Job:
    d, h, w = (weight[0] for weight in given["weights"])
    weight, total = d[:, None, None] * h[:, None] * w, torch.zeros_like(given["total"])
    origins = given["origins"].cpu()
    return lambda: blend_with(torch, given["logits"], origins, weight, total)


def label_with(arrays: Any, logits: Any, labels: Any, box: ops.Box) -> Any:
    wt, tc, et = 1 / (1 + arrays.exp(-logits)) >= 0.5
    inside = labels[tuple(slice(*side) for side in box)]
    inside[:] = 0
    for region, value in ((wt, 2), (tc, 1), (et, 4)):
        inside[region] = value
    return labels


def torch_label(torch: Any, given: Arguments) -> Job:
    labels = torch.zeros_like(given["labels"])
    return lambda: label_with(torch, given["logits"], labels, given["box"])


def expected_dice_with(arrays: Any, logits: Any) -> Any:
    """Means, and the largest, of every second voxel, with a temperature of 2."""
    z = logits[:, ::2, ::2, ::2].reshape(len(logits), -1)
    p, inside = 1 / (1 + arrays.exp(z / -2)), 1.0 * (z >= 0)
    return arrays.stack([inside.mean(1), p.mean(1), (p * inside).mean(1), arrays.amax(p, 1)], 1)


def torch_resample(torch: Any, given: Arguments) -> Job:
    interpolate, tensor = torch.nn.functional.interpolate, given["tensor"][None]
    return lambda: interpolate(tensor, size=given["size"], mode="trilinear")[0]


def scipy_resample(ndimage: Any, tensor: NDArray[Any]) -> Job:
    """To twice as many slices."""
    return lambda: ndimage.zoom(tensor, (1, 2, 1, 1), order=1, grid_mode=True, mode="nearest")


def scipy_affine(ndimage: Any, images: NDArray[Any], matrix: NDArray[Any], size: ops.Size) -> Job:
    turn, shift = matrix[:, :3], matrix[:, 3]
    options = {"order": 1, "mode": "nearest"}
    return lambda: [ndimage.affine_transform(x, turn, shift, size, **options) for x in images]


def scipy_components(ndimage: Any, labels: NDArray[np.uint8]) -> Job:
    """The number of parts; counts their voxels, too, as the op does."""
    neighbours = np.ones((3, 3, 3))
    return lambda: len(np.bincount(ndimage.label(labels, neighbours)[0].ravel())) - 1


def scipy_enclosed(ndimage: Any, labels: NDArray[np.uint8], core: int) -> Job:
    """Inner voxels of the largest part of core; does not look at what the parts touch."""

    def largest() -> np.int64:
        inner = ndimage.binary_erosion(labels == core)
        return np.bincount(ndimage.label(inner)[0].ravel())[1:].max()

    return largest


def bridge_tensors(weights: Sequence[Any]) -> list[Any]:
    """`BridgeWeights`, as tensors, in the shapes that `bridge_with_torch` takes."""
    conv, bias, axis_bias, expand = weights
    return [conv, bias, axis_bias[:, :, None, None], expand[:, :, None, None]]


def bridge_with_torch(torch: Any, reduced: Any, x: Any, weights: Any) -> Any:
    """`training.model.bridge` after its first convolution."""
    functional, (conv, bias, axis_bias, expand) = torch.nn.functional, weights
    seen = []
    for axis, shift in zip((2, 3, 4), axis_bias, strict=True):
        plane = torch.cat([reduced.mean(axis), reduced.amax(axis)], dim=1)
        hidden = functional.conv2d(plane, conv, bias, padding=1) + shift
        seen.append(functional.conv2d(functional.leaky_relu(hidden, 0.01), expand))
    return x + (seen[0][:, :, None] + seen[1][:, :, :, None] + seen[2][..., None]) / 3


def torch_bridge(torch: Any, given: Arguments) -> Job:
    weights = bridge_tensors(given["weights"])
    return lambda: bridge_with_torch(torch, given["reduced"], given["x"], weights)


def attention_tensors(weights: Sequence[Any]) -> list[Any]:
    """Arrays of `AttentionWeights`, as tensors, in the shapes that `attend_with_torch` takes."""
    w_x, bias, w_g, w_s, w_a = weights
    voxel = (..., None, None, None)  # a matrix over channels is a convolution of one voxel
    return [w_x[voxel], bias, w_g[voxel], w_s[voxel], w_a[:, None]]


def attend_with_torch(torch: Any, inputs: Any, weights: Any, strength: float, out: Any) -> Any:
    """`training.model.attention`, into the buffer of the concatenation."""
    functional = torch.nn.functional
    (skip, encoded, decoded, similarity), (w_x, bias, w_g, w_s, w_a) = inputs, weights
    hidden = functional.conv3d(encoded, w_x, bias) + functional.conv3d(decoded, w_g)
    up = functional.interpolate(similarity, size=encoded.shape[2:], mode="trilinear")
    hidden = functional.leaky_relu(hidden + functional.conv3d(up, w_s), 0.01)
    mask = functional.conv_transpose3d(hidden, w_a, stride=2).sigmoid()
    out[:] = skip * (1 + strength * (2 * mask - 1))
    return out


def torch_attention(torch: Any, given: Arguments) -> Job:
    inputs = [given[name] for name in ("skip", "encoded", "decoded", "similarity")]
    *arrays, strength = given["weights"]
    weights, out = attention_tensors(arrays), torch.empty_like(given["skip"])
    return lambda: attend_with_torch(torch, inputs, weights, strength, out)
