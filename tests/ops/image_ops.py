"""The ops around the network, as `registry` lists them, each with random arguments of any size.

A size (D, H, W) has one voxel or more along each axis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.ops import Box, Size, reference
from tests.ops.op import Arguments, Op, Random, noise, tensor
from tests.ops.views import IMAGE_TYPES


def image(rng: Random, size: Size, dtype: str) -> NDArray[Any]:
    """Two modalities, zero in a third of the voxels, from values of few bits to large ones."""
    scales = {"i1": 9, "u1": 9, "i2": 2000, "u2": 2000, "f4": 1e3, "f8": 1e3}
    values = noise(rng, 2, *size) * scales.get(dtype, 3e8) * (rng.random(size) < 2 / 3)
    return (values if dtype[0] != "u" else np.abs(values)).astype(dtype)


def inner(size: Size) -> Box:
    """A box without the first quarter of each axis."""
    d, h, w = ((n // 4, n) for n in size)
    return d, h, w


def brain_box_example(rng: Random, size: Size, dtype: str) -> Arguments:
    volume = image(rng, size, dtype)
    if dtype[0] == "f":
        volume[1, 0, 0, 0], volume[0, -1, -1, -1] = np.nan, np.inf
    return {"volume": volume}


def brain_box_exact(volume: Any) -> tuple[Any, ...]:
    bounds, n_brain, n_nonfinite, n_nonzero = reference.brain_box(volume)
    return (np.array([*sum(bounds, ()), n_brain, *n_nonfinite, *n_nonzero]),)


def normalize_example(rng: Random, size: Size, dtype: str) -> Arguments:
    padded = tuple(n + 3 for n in size)
    volume, percentiles = image(rng, size, dtype), (5.0, 95.0)
    return {"volume": volume, "box": inner(size), "size": padded, "percentiles": percentiles}


def normalize_outputs(given: Arguments) -> Arguments:
    n = len(given["volume"])
    scratch = np.empty(ops.normalize_scratch(n, given["box"]), np.uint8)
    return {"out": tensor(n, *given["size"]), "stats": np.empty((n, 4)), "scratch": scratch}


def window_example(rng: Random, size: Size, _: str) -> Arguments:
    """Windows that begin before the tensor, end after it, miss it."""
    d, h, w = size
    far = (2**31 - 1, -(2**31), 5)
    origins = np.array([(0, 0, 0), (2, -1, 3), (-1, h // 2, 5), (d, 0, -w), far], np.int32)
    return {"tensor": noise(rng, 2, *size), "origins": origins, "size": (max(1, d - 1), h, w + 1)}


def blend_example(
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


def label_example(rng: Random, size: Size, _: str = "float32") -> Arguments:
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


def expected_dice_example(rng: Random, size: Size, _: str = "float32") -> Arguments:
    """Every second voxel of a box inside larger logits."""
    return {
        "logits": 3 * noise(rng, 2, *(n + 3 for n in size)),
        "offset": (0, 1, 3),
        "size": size,
        "temperatures": (1.7, 0.9),
        "thresholds": (0.4, 0.6),
        "step": 2,
    }


def resample_example(rng: Random, size: Size, _: str) -> Arguments:
    d, h, w = size
    return {"tensor": noise(rng, 2, *size), "size": (d + 1, max(1, h // 2), w + 2)}


def oblique_grid(rng: Random, shape: Size, size: Size) -> NDArray[np.float64]:
    """A turned, stretched and sheared grid whose middle is near the tensor's."""
    matrix = np.eye(3, 4) * (np.array(shape) / np.array(size))[:, None]
    matrix[:, :3] += rng.normal(size=(3, 3)) * 0.2
    matrix[:, 3] = (np.array(shape) - 1) / 2 - matrix[:, :3] @ ((np.array(size) - 1) / 2) + 0.1
    return matrix


def resample_affine_example(rng: Random, size: Size, dtype: str) -> Arguments:
    """Bytes by their nearest voxels, as labels are; other types by interpolation."""
    d, h, w = size
    target = (d + 1, h, w + 2)
    matrix, tensor = oblique_grid(rng, size, target), image(rng, size, dtype)
    nearest = dtype[1] == "1"
    return {"tensor": tensor, "matrix": matrix, "size": target, "nearest": nearest, "outside": 5.0}


def resample_affine_outputs(given: Arguments) -> Arguments:
    is_labels = given.get("nearest", False) and given["tensor"].dtype == np.uint8
    shape = (len(given["tensor"]), *given["size"])
    return {"out": np.empty(shape, np.uint8) if is_labels else tensor(*shape)}


def components_example(rng: Random, size: Size, _: str) -> Arguments:
    labels = (rng.random(size) < 0.1) * rng.integers(1, 5, size, np.uint8)
    return {"labels": labels, "box": inner(size), "min_voxels": 5}


def components_exact(labels: Any, box: ops.Box, min_voxels: int) -> tuple[Any, ...]:
    after, n_before, n_after = reference.components(labels, box, min_voxels)
    n_removed = np.bincount(labels[labels != after], minlength=256)
    return after, np.array([n_before, n_after, *n_removed])


def components_outputs(given: Arguments) -> Arguments:
    n = math.prod(stop - start for start, stop in given["box"])
    return {"counts": np.empty(258, np.int64), "scratch": np.empty((2, n), np.int32)}


def stray_core_example(rng: Random, size: Size, _: str) -> Arguments:
    """Blocks of three voxels a side; where there is room core in a ring, and core away from it."""
    blocks = rng.choice(
        np.array([0, 1, 2, 4], np.uint8), tuple(-(-n // 3) for n in size), p=(0.1, 0.4, 0.2, 0.3)
    )
    d, h, w = size
    labels = blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2)[:d, :h, :w].copy()
    if d >= 5 and h >= 5 and w >= 11:
        labels[-5:, -5:, -11:] = np.repeat(np.array([2, 4], np.uint8), (6, 5))
        labels[-4:-1, -4:-1, [-10, -9, -8, -4, -3, -2]] = 1
    return {"labels": labels, "box": inner(size), "values": (2, 1, 4), "min_voxels": 1}


def stray_core_exact(**given: Any) -> tuple[Any, ...]:
    after, *counts = reference.stray_core(**given)
    return after, np.array(counts)


def stray_core_outputs(given: Arguments) -> Arguments:
    n = math.prod(stop - start for start, stop in given["box"])
    return {"counts": np.empty(3, np.int64), "scratch": np.empty((4, n), np.int32)}


def mutual_information_example(rng: Random, size: Size, _: str = "float32") -> Arguments:
    """Points around a moving image of few grey levels, under two maps."""
    points = rng.uniform(-1, 1, (500, 3)) * size
    maps = np.stack([oblique_grid(rng, size, size) for _ in range(2)])
    maps[:, :, 3] = (np.array(size) - 1) / 2
    return {
        "points": points.astype(np.float32),
        "values": rng.integers(0, 256, 500).astype(np.uint8),
        "moving": rng.integers(0, 256, size).astype(np.uint8),
        "maps": maps,
    }


IMAGE_OPS = (
    Op(
        "brain_box",
        brain_box_example,
        brain_box_exact,
        results=("found",),
        outputs=lambda given: {"found": np.empty(7 + 2 * len(given["volume"]), np.int64)},
        dtypes=IMAGE_TYPES,
        strided=("volume",),
        same_bits=True,
    ),
    Op(
        "normalize",
        normalize_example,
        reference.normalize,
        results=("out", "stats"),
        outputs=normalize_outputs,
        floats=("out",),
        dtypes=IMAGE_TYPES,
        strided=("volume",),
    ),
    Op(
        "window",
        window_example,
        lambda **given: (reference.window(**given),),
        results=("out",),
        outputs=lambda given: {
            "out": tensor(len(given["origins"]), len(given["tensor"]), *given["size"])
        },
        floats=("tensor", "out"),
        same_bits=True,
    ),
    Op(
        "blend",
        blend_example,
        lambda **given: (reference.blend(**given),),
        results=("total",),
        floats=("logits",),
        same_bits=True,
    ),
    Op(
        "label",
        label_example,
        reference.label,
        results=("labels", "counts"),
        outputs=lambda _: {"counts": np.empty(4, np.int64)},
        floats=("logits",),
        strided=("labels",),
        same_bits=True,
    ),
    Op(
        "expected_dice",
        expected_dice_example,
        lambda **given: (reference.expected_dice(**given),),
        results=("sums",),
        outputs=lambda given: {"sums": np.empty((len(given["logits"]), 4), np.int64)},
        floats=("logits",),
    ),
    Op(
        "resample",
        resample_example,
        lambda **given: (reference.resample(**given),),
        results=("out",),
        outputs=lambda given: {"out": tensor(len(given["tensor"]), *given["size"])},
        floats=("tensor", "out"),
    ),
    Op(
        "resample_affine",
        resample_affine_example,
        lambda **given: (reference.resample_affine(**given),),
        results=("out",),
        outputs=resample_affine_outputs,
        dtypes=IMAGE_TYPES,
        strided=("tensor",),
        on_host=("matrix",),
        same_bits=True,
    ),
    Op(
        "components",
        components_example,
        components_exact,
        results=("labels", "counts"),
        outputs=components_outputs,
        strided=("labels",),
        same_bits=True,
    ),
    Op(
        "stray_core",
        stray_core_example,
        stray_core_exact,
        results=("labels", "counts"),
        outputs=stray_core_outputs,
        strided=("labels",),
        same_bits=True,
    ),
    Op(
        "mutual_information",
        mutual_information_example,
        lambda **given: (reference.mutual_information(**given),),
        results=("out",),
        outputs=lambda given: {"out": np.empty((len(given["maps"]), 2))},
        strided=("moving",),
        on_cuda=False,
    ),
)
