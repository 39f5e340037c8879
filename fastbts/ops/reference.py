"""Reference implementation of `fastbts.ops` in NumPy, to compare with: plain code, in float64.

Argument names and shapes are those of the ops; results are float64 where theirs are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastbts.ops import AttentionWeights, BridgeWeights

Size = tuple[int, int, int]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
FACES = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
CORNERS = [(d, h, w) for d, h, w in product((-1, 0, 1), repeat=3)]
"""Steps to the voxels that share a face, or at least a corner."""


def brain_box(volume: NDArray[Any]) -> tuple[Box, int, tuple[int, ...], tuple[int, ...]]:
    """Returns bounds, n_brain, n_nonfinite and n_nonzero of a volume (M, D, H, W)."""
    brain = (volume != 0).any(axis=0)
    n_nonfinite = tuple(int((~np.isfinite(image)).sum()) for image in volume)
    n_nonzero = tuple(int((image != 0).sum()) for image in volume)
    where = np.argwhere(brain)
    if len(where) == 0:
        return ((0, 0), (0, 0), (0, 0)), 0, n_nonfinite, n_nonzero
    d, h, w = zip(where.min(axis=0).tolist(), (where.max(axis=0) + 1).tolist(), strict=True)
    return (d, h, w), len(where), n_nonfinite, n_nonzero


def normalize(
    volume: NDArray[Any], box: Box, size: Size, percentiles: tuple[float, float] = (0.1, 99.9)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the tensor (M, *size) and the stats (M, 4)."""
    inside = volume[(slice(None), *(slice(*bounds) for bounds in box))].astype(np.float64)
    brain = (inside != 0).any(axis=0)
    tensor, stats = np.zeros((len(volume), *size)), np.zeros((len(volume), 4))
    where = tuple(
        slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, brain.shape, strict=True)
    )
    if not brain.any():
        return tensor, stats
    for image, target, row in zip(inside, tensor[(slice(None), *where)], stats, strict=True):
        lo, hi = np.percentile(image[brain], percentiles, method="inverted_cdf")
        clipped = image[brain].clip(lo, hi)
        mean, std = (clipped.mean(), clipped.std()) if lo < hi else (lo, 0.0)
        row[:] = lo, hi, mean, std
        target[brain] = (clipped - mean) / std if std > 0 else 0.0
    return tensor, stats


def window(
    tensor: NDArray[np.float32], origins: NDArray[np.int32], size: Size
) -> NDArray[np.float64]:
    """Returns the windows (B, M, *size)."""
    windows: NDArray[np.float64] = np.zeros((len(origins), len(tensor), *size))
    for b, origin in enumerate(origins):
        for p in np.ndindex(*size):
            voxel = tuple(int(o) + i for o, i in zip(origin, p, strict=True))
            if _inside(voxel, tensor.shape[1:]):
                windows[b][_all(p)] = tensor[_all(voxel)]
    return windows


def blend(
    logits: NDArray[np.float32],
    origins: NDArray[np.int32],
    weights: Weights,
    total: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Returns the total (K, D, H, W) with the windows added."""
    wd, wh, ww = (w.astype(np.float64) for w in weights)
    result = total.astype(np.float64)
    for b, origin in enumerate(origins):
        for p in np.ndindex(*logits.shape[2:]):
            voxel = tuple(int(o) + i for o, i in zip(origin, p, strict=True))
            if _inside(voxel, total.shape[1:]):
                result[_all(voxel)] += wd[b, p[0]] * wh[b, p[1]] * ww[b, p[2]] * logits[b][_all(p)]
    return result


def label(
    logits: NDArray[np.float32],
    offset: Size,
    box: Box,
    thresholds: tuple[float, float, float],
    values: tuple[int, int, int],
    labels: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Returns the labels (D, H, W) with the box written; n_wt, n_tc, n_et, n_nonfinite."""
    source = tuple(slice(o, o + end - begin) for o, (begin, end) in zip(offset, box, strict=True))
    inside = logits[(slice(None), *source)].astype(np.float64)
    wt, tc, et = (
        z >= np.log(t / (1 - t)) for z, t in zip(inside, thresholds, strict=True)
    )  # sigmoid(z) >= t
    ed, ncr, enhancing = values
    result = labels.copy()
    result[tuple(slice(*bounds) for bounds in box)] = np.select(
        [et, tc, wt], [enhancing, ncr, ed], 0
    )
    nonfinite = ~np.isfinite(inside).all(axis=0)
    n_wt, n_tc = int((wt | tc | et).sum()), int((tc | et).sum())
    return result, (n_wt, n_tc, int(et.sum()), int(nonfinite.sum()))


def expected_dice(
    logits: NDArray[np.float32],
    offset: Size,
    size: Size,
    temperatures: Sequence[float],
    thresholds: Sequence[float],
    step: int = 1,
) -> NDArray[np.float64]:
    """Returns sum(m), sum(p), sum(p m) and max(p) of each region; p in units of 2^-30."""
    box = tuple(slice(o, o + n, step) for o, n in zip(offset, size, strict=True))
    rows = []
    for z, temperature, threshold in zip(
        logits[(slice(None), *box)].astype(np.float64), temperatures, thresholds, strict=True
    ):
        p = np.nan_to_num(1 / (1 + np.exp(-z / temperature)))
        inside = z >= np.log(threshold / (1 - threshold))
        units = np.array([p.sum(), p[inside].sum(), p.max(initial=0)]) * 2**30
        rows.append([inside.sum(), *units])
    return np.array(rows).reshape(-1, 4)


def resample(tensor: NDArray[np.float32], size: Size) -> NDArray[np.float64]:
    """Returns the tensor (C, *size)."""
    result = tensor.astype(np.float64)
    for axis, n_out in enumerate(size, start=1):
        n_in = result.shape[axis]
        position = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = np.floor(position).astype(int)
        part = (position - low).reshape([-1 if a == axis else 1 for a in range(4)])
        result = (1 - part) * result.take(low, axis) + part * result.take(
            np.minimum(low + 1, n_in - 1), axis
        )
    return result


def resample_affine(
    tensor: NDArray[Any],
    matrix: NDArray[np.float64],
    size: Size,
    nearest: bool = False,
    outside: float = 0.0,
) -> NDArray[np.float64]:
    """Returns the tensor (C, *size)."""
    position = matrix[:3, :3] @ np.indices(size).reshape(3, -1) + matrix[:3, 3:]
    last = np.array(tensor.shape[1:])[:, None] - 1
    inside = ((position >= -0.5) & (position <= last + 0.5)).all(0)
    position = np.clip(position + 0.5 * nearest, 0, last)
    low = np.floor(position).astype(int)
    part = (position - low) * (not nearest)
    result = np.zeros((len(tensor), inside.size))
    for corner in product((0, 1), repeat=3):
        sides = np.array(corner)[:, None]
        weight = np.where(sides, part, 1 - part).prod(0)
        result += weight * tensor[(slice(None), *np.minimum(low + sides, last))]
    return np.where(inside, result, outside).reshape(len(tensor), *size)


def components(
    labels: NDArray[np.uint8], box: Box, min_voxels: int
) -> tuple[NDArray[np.uint8], int, int]:
    """Returns the labels with small parts set to 0, and the number of parts before and after."""
    result = labels.copy()
    inside = result[tuple(slice(*bounds) for bounds in box)]
    waiting, n_before, n_after = inside != 0, 0, 0
    for d, h, w in np.argwhere(waiting).tolist():
        part = _flood(waiting, (d, h, w))
        small = len(part) < min_voxels
        n_before += bool(part)
        n_after += bool(part) and not small
        for voxel in part if small else ():
            inside[voxel] = 0
    return result, n_before, n_after


def stray_core(
    labels: NDArray[np.uint8], box: Box, values: tuple[int, int, int], min_voxels: int
) -> tuple[NDArray[np.uint8], int, int, int]:
    """Returns the labels with stray core changed, and voxels enclosed, stray, and changed."""
    result, (edema, core, et) = labels.copy(), values
    inside = result[tuple(slice(*bounds) for bounds in box)]
    is_core = inside == core
    touches_et = _beside(inside == et).max(0)
    inner = is_core & _beside(is_core).min(0)
    waiting, marks = inner.copy(), inner.astype(np.uint8)
    n_enclosed = n_stray = 0
    for start in np.argwhere(inner).tolist():
        part = _flood(waiting, tuple(start), FACES)
        faces = [at for voxel in part for at in _near(voxel, FACES) if not inner[at]]
        if len(part) < max(1, min_voxels):
            continue
        contact = Fraction(int(sum(touches_et[at] for at in faces)), len(faces))
        n_enclosed += len(part) * (contact >= Fraction(7, 10))
        if contact < Fraction(1, 4):
            n_stray += len(part)
            marks[tuple(np.transpose(part))] = 2
    for _ in range(3):
        marks = np.where(is_core & (marks == 0), _beside(marks).max(0), marks)
    changed = (marks == 2) & (20 * n_enclosed >= n_stray)
    inside[changed] = edema
    return result, n_enclosed, n_stray, int(changed.sum())


def _beside(volume: NDArray[Any]) -> NDArray[Any]:
    """(6, D, H, W): the six neighbours of each voxel; 0 outside."""
    padded, inside = np.pad(volume, 1), (slice(1, -1),) * 3
    steps = product(range(3), (-1, 1))
    return np.stack([np.roll(padded, step, axis)[inside] for axis, step in steps])


def _near(voxel: Size, steps: Sequence[Size]) -> list[Size]:
    return [(voxel[0] + d, voxel[1] + h, voxel[2] + w) for d, h, w in steps]


def _flood(waiting: NDArray[np.bool_], start: Size, steps: Sequence[Size] = CORNERS) -> list[Size]:
    """Removes the connected part around a voxel from `waiting`; returns its voxels."""
    part: list[Size] = []
    front = [start]
    while front:
        voxel = front.pop()
        if _inside(voxel, waiting.shape) and waiting[voxel]:
            waiting[voxel] = False
            part.append(voxel)
            front += _near(voxel, steps)
    return part


def semantic_bridge(
    x: NDArray[np.float32], reduced: NDArray[np.float32], weights: BridgeWeights
) -> NDArray[np.float64]:
    """Returns out (B, C, D, H, W)."""
    z, y, x_plane = convolved_planes(projections(reduced), weights)
    return x + (z[:, :, None] + y[:, :, :, None] + x_plane[..., None]) / 3


def projections(reduced: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Returns the planes z (B, 2R, H, W), y (B, 2R, D, W), x (B, 2R, D, H)."""
    exact = reduced.astype(np.float64)
    return [np.concatenate([exact.mean(axis), exact.max(axis)], axis=1) for axis in (2, 3, 4)]


def convolved_planes(
    planes: list[NDArray[np.float64]], weights: BridgeWeights
) -> list[NDArray[np.float64]]:
    """Returns the planes z, y, x with C channels."""
    conv, bias, axis_bias, expand = (w.astype(np.float64) for w in weights)
    convolved = []
    for plane, shift in zip(planes, axis_bias, strict=True):
        n_rows, n_columns = plane.shape[2:]
        padded = np.pad(plane, ((0, 0), (0, 0), (1, 1), (1, 1)))
        hidden = np.zeros((len(plane), len(conv), n_rows, n_columns))
        hidden += (bias + shift)[:, None, None]
        for i, j in product(range(3), repeat=2):
            part = padded[:, :, i : i + n_rows, j : j + n_columns]
            hidden += np.einsum("rc,bchw->brhw", conv[:, :, i, j], part)
        activated = np.where(hidden > 0, hidden, 0.01 * hidden)
        convolved.append(np.einsum("cr,brhw->bchw", expand, activated))
    return convolved


def semantic_attention(
    skip: NDArray[np.float32],
    encoded: NDArray[np.float32],
    decoded: NDArray[np.float32],
    similarity: NDArray[np.float32],
    weights: AttentionWeights,
) -> NDArray[np.float64]:
    """Returns out (B, C, D, H, W)."""
    up = np.zeros((len(similarity), similarity.shape[1], *encoded.shape[2:]))
    d, h, w = encoded.shape[2:]
    up[:] = [resample(maps, (d, h, w)) for maps in similarity]
    parts = ((weights.w_x, encoded), (weights.w_g, decoded), (weights.w_s, up))
    hidden = sum(np.einsum("jc,bcdhw->bjdhw", w.astype(np.float64), x) for w, x in parts)
    hidden += weights.bias.astype(np.float64)[:, None, None, None]
    activated = np.where(hidden > 0, hidden, 0.01 * hidden)
    children = np.einsum("jxyz,bjdhw->bdxhywz", weights.w_a.astype(np.float64), activated)
    mask = 1 / (1 + np.exp(-children.reshape(len(skip), 1, *skip.shape[2:])))
    return skip * (1 + weights.strength * (2 * mask - 1))


def mutual_information(
    points: NDArray[np.float32],
    values: NDArray[np.uint8],
    moving: NDArray[np.uint8],
    maps: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns NMI and the share of points inside, (K, 2); interpolates in float32, as the op."""
    results = np.zeros((len(maps), 2))
    last = np.array(moving.shape, np.float32) - 1
    for result, rows in zip(results, maps.astype(np.float32), strict=True):
        x, y, z = points.T
        place = np.stack([a * x + b * y + c * z + d for a, b, c, d in rows], axis=1)
        inside = ((place >= -0.5) & (place <= last + 0.5)).all(axis=1)
        sampled = _trilinear(moving, np.clip(place[inside], 0, last))
        counts = _joint_histogram(values[inside], sampled)
        both, single = _entropy(counts), _entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))
        result[:] = single / both if both > 0 else 1, inside.mean()
    return results


def _trilinear(image: NDArray[np.uint8], place: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (N,) at places (N, 3) inside the image: along W, then H, then D, in float32."""
    low = place.astype(int)
    part = (place - low).astype(np.float32).T
    corners = np.zeros((2, 2, 2, len(place)), np.float32)
    for corner in np.ndindex(2, 2, 2):
        corners[corner] = image[tuple(np.minimum(low + corner, np.array(image.shape) - 1).T)]
    for axis in (2, 1, 0):
        first, second = np.moveaxis(corners, axis, 0)
        corners = first + (second - first) * part[axis]
    return corners


def _joint_histogram(
    fixed: NDArray[np.uint8], moving: NDArray[np.float32], n: int = 32
) -> NDArray[np.int64]:
    """Counts (n, n) in 1/256 of a point: fixed values in one bin each, moving ones in two."""
    counts = np.zeros((n, n), np.int64)
    bins = moving * (np.float32(n - 1) / np.float32(255))
    low = np.minimum(bins.astype(int), n - 2)
    upper = ((bins - low.astype(np.float32)) * 256).astype(int)
    np.add.at(counts, (fixed.astype(int) * n // 256, low), 256 - upper)
    np.add.at(counts, (fixed.astype(int) * n // 256, low + 1), upper)
    return counts


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _all(voxel: tuple[int, ...]) -> Any:
    """Index of a voxel in all channels; Any, as NumPy's types do not know such tuples."""
    return (slice(None), *voxel)


def _inside(voxel: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(0 <= i < n for i, n in zip(voxel, shape, strict=True))
