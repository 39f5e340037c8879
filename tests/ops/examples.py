"""Random arguments of each op, for a size (D, H, W) of one voxel or more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import AttentionWeights, Box, BridgeWeights, Size

Arguments = dict[str, Any]
"""Keyword arguments of an op."""

Random = np.random.Generator


def noise(rng: Random, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32)


def image(rng: Random, size: Size, dtype: str) -> NDArray[Any]:
    """Two modalities, zero in a third of the voxels, from values of few bits to large ones."""
    scales = {"i1": 9, "u1": 9, "i2": 2000, "u2": 2000, "f4": 1e3, "f8": 1e3}
    values = noise(rng, 2, *size) * scales.get(dtype, 3e8) * (rng.random(size) < 2 / 3)
    return (values if dtype[0] != "u" else np.abs(values)).astype(dtype)


def inner(size: Size) -> Box:
    """A box without the first quarter of each axis."""
    d, h, w = ((n // 4, n) for n in size)
    return d, h, w


def brain_box(rng: Random, size: Size, dtype: str) -> Arguments:
    volume = image(rng, size, dtype)
    if dtype[0] == "f":
        volume[1, 0, 0, 0], volume[0, -1, -1, -1] = np.nan, np.inf
    return {"volume": volume}


def normalize(rng: Random, size: Size, dtype: str) -> Arguments:
    padded = tuple(n + 3 for n in size)
    volume, percentiles = image(rng, size, dtype), (5.0, 95.0)
    return {"volume": volume, "box": inner(size), "size": padded, "percentiles": percentiles}


def window(rng: Random, size: Size, _: str) -> Arguments:
    """Windows that begin before the tensor, end after it, miss it."""
    d, h, w = size
    far = (2**31 - 1, -(2**31), 5)
    origins = np.array([(0, 0, 0), (2, -1, 3), (-1, h // 2, 5), (d, 0, -w), far], np.int32)
    return {"tensor": noise(rng, 2, *size), "origins": origins, "size": (max(1, d - 1), h, w + 1)}


def blend(
    rng: Random, size: Size, _: str = "float32", *, window: Size | None = None, n_windows: int = 6
) -> Arguments:
    """Random windows of 2 regions over a volume; some reach outside it, one misses it."""
    window = window or (max(1, size[0] // 2), size[1], max(1, size[2] // 2))
    logits = noise(rng, n_windows, 2, *window)
    corners = [rng.integers(-w, n + 1, n_windows) for n, w in zip(size, window, strict=True)]
    origins = np.stack(corners, axis=1).astype(np.int32)
    origins[0], origins[1] = 0, 2**31 - 1
    wd, wh, ww = (rng.random((n_windows, w), np.float32) for w in window)
    total = noise(rng, 2, *size)
    return {"logits": logits, "origins": origins, "weights": (wd, wh, ww), "total": total}


def label(rng: Random, size: Size, _: str = "float32") -> Arguments:
    """Logits larger than the box, and labels larger than it, filled with a mark."""
    logits = 2 * noise(rng, 3, *(n + 3 for n in size))
    return {
        "logits": logits,
        "offset": (0, 1, 3),
        "box": tuple((2, 2 + n) for n in size),
        "thresholds": (0.4, 0.5, 0.6),
        "values": (2, 1, 4),
        "labels": np.full([n + 5 for n in size], 9, np.uint8),
    }


def resample(rng: Random, size: Size, _: str) -> Arguments:
    d, h, w = size
    return {"tensor": noise(rng, 2, *size), "size": (d + 1, max(1, h // 2), w + 2)}


def oblique(rng: Random, shape: Size, size: Size) -> NDArray[np.float64]:
    """A turned, stretched and sheared grid whose middle is near the tensor's."""
    matrix = np.eye(3, 4) * (np.array(shape) / np.array(size))[:, None]
    matrix[:, :3] += rng.normal(size=(3, 3)) * 0.2
    matrix[:, 3] = (np.array(shape) - 1) / 2 - matrix[:, :3] @ ((np.array(size) - 1) / 2) + 0.1
    return matrix


def resample_affine(rng: Random, size: Size, dtype: str) -> Arguments:
    """Bytes by their nearest voxels, as labels are; other types by interpolation."""
    d, h, w = size
    target = (d + 1, h, w + 2)
    matrix, tensor = oblique(rng, size, target), image(rng, size, dtype)
    nearest = dtype[1] == "1"
    return {"tensor": tensor, "matrix": matrix, "size": target, "nearest": nearest, "outside": 5.0}


def components(rng: Random, size: Size, _: str) -> Arguments:
    labels = (rng.random(size) < 0.1) * rng.integers(1, 5, size, np.uint8)
    return {"labels": labels, "box": inner(size), "min_voxels": 5}


def bridge_weights(rng: Random, n_r: int, n_c: int) -> BridgeWeights:
    """Sums stay near 1."""
    conv = noise(rng, n_r, 2 * n_r, 3, 3) / np.sqrt(18 * n_r, dtype=np.float32)
    return BridgeWeights(conv, noise(rng, n_r), noise(rng, 3, n_r), noise(rng, n_c, n_r))


def semantic_bridge(
    rng: Random, size: Size, _: str = "float32", *, n_r: int = 5, n_c: int = 7, n_cases: int = 2
) -> Arguments:
    return {
        "x": noise(rng, n_cases, n_c, *size),
        "reduced": noise(rng, n_cases, n_r, *size),
        "weights": bridge_weights(rng, n_r, n_c),
    }


def semantic_attention(
    rng: Random,
    size: Size,
    _: str = "float32",
    *,
    n_c: int = 3,
    n_below: int = 4,
    n_j: int = 19,
    n_cases: int = 2,
) -> Arguments:
    """`size` is that of the level below; three similarity maps at half of it."""
    encoded, decoded = noise(rng, 2, n_cases, n_below, *size)
    w_x, bias, w_g = noise(rng, n_j, n_below) / 4, noise(rng, n_j), noise(rng, n_j, n_below) / 4
    w_s, w_a = noise(rng, n_j, 3), noise(rng, n_j, 2, 2, 2) / 4
    return {
        "skip": noise(rng, n_cases, n_c, *(2 * n for n in size)),
        "encoded": encoded,
        "decoded": decoded,
        "similarity": noise(rng, n_cases, 3, *(max(1, n // 2) for n in size)),
        "weights": AttentionWeights(w_x, bias, w_g, w_s, w_a, strength=0.7),
    }
