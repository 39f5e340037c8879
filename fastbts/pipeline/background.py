"""The background of an image that is not exactly 0: its level, and how far it deviates from that.

Whole images are looked at in slabs that fit into a CPU's cache, as new memory for all of one takes
longer than what is computed in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.pipeline.masks import Mask

DARK = 0.1  # of the scale of an image: below it is background, or perhaps dark brain
RINGING = 0.02  # of that scale: ringing at the surface of the brain
FEW = 99.9  # per cent: all but a few
SPARSE = 8  # of so many voxels along two axes one, where a sample is enough
SAFETY, MARGIN = 2.0, 1.2  # tolerance, relative to nearly all and all deviations of the background
SLAB = 2**18  # voxels


@dataclass(frozen=True)
class Background:
    """The background of one image.

    Attributes:
        value: Taken as 0.
        tolerance: Largest deviation from it.
        n_nonfinite: NaN or infinite voxels, which became background.
        n_stray: Other voxels that are not brain, and became background.
        voted: Whether the image took part in the vote on what is brain.
    """

    value: float = 0.0
    tolerance: float = 0.0
    n_nonfinite: int = 0
    n_stray: int = 0
    voted: bool = True


@dataclass(frozen=True)
class Level:
    """Level of an image's background, and scale of its brain above it; 0 if it has neither."""

    value: float
    scale: float


def slabs(image: NDArray[Any]) -> Iterator[slice]:
    """Parts of the first axis of an image (D, H, W)."""
    n = max(1, SLAB // max(1, math.prod(image.shape[1:])))
    return (slice(begin, begin + n) for begin in range(0, len(image), n))


def level_of(image: NDArray[Any]) -> Level:
    """Takes the level from the border of the image, if most of the border has about one value."""
    border = _border(image)
    # A value of the image, as the mean of two would be no background at all.
    value = float(np.percentile(border, 50, method="inverted_cdf")) if border.size else 0.0
    value += 0.0  # no -0
    scale = float(np.percentile(_deviation(image[::2, ::2, ::2], value), 99))
    is_level = border.size == 0 or np.percentile(_deviation(border, value), 75) <= DARK * scale
    return Level(value, scale) if scale and is_level else Level(0.0, 0.0)


def is_above(image: NDArray[Any], level: Level, tolerance: float) -> Mask:
    """Where an image (D, H, W) deviates more than that from its level."""
    above: Mask = np.empty_like(image, bool)
    for part in slabs(image):
        np.greater(_deviation(image[part], level.value), tolerance, out=above[part])
    return above


def tolerance_of(image: NDArray[Any], level: Level, is_outside: Mask, is_near: Mask) -> float:
    """The largest deviation outside the head, unless it is that of a few stray voxels.

    Ringing of an interpolation decays with the distance from the brain, and is larger at its
    surface than where it can be told from the brain.
    """
    n = int(np.count_nonzero(is_outside))
    if not level.scale or not n:
        return 0.0
    near = [_deviation(image[part][is_near[part]], level.value) for part in slabs(image)]
    surface = float(np.median(np.concatenate(near))) if any(map(len, near)) else 0.0
    highest, n_low = _highest_and_low(image, level.value, is_outside, surface / 2)
    few = _nearly_all(highest, n)
    tolerance = min(SAFETY * few, MARGIN * float(highest.max()))
    decays = 2 * n_low > n  # the median is less than half of that near the brain
    return min(max(tolerance, RINGING * level.scale if decays else 0.0), DARK * level.scale)


@np.errstate(all="ignore")  # of what is not finite, or absurd
def without(
    image: NDArray[Any], value: float, brain: Mask, target: NDArray[Any], box: tuple[slice, ...]
) -> None:
    """Writes the image less the value into a target of zeros, inside the brain, which is in a box.

    Voxels that are not finite stay 0.
    """
    image, brain, target = image[box], brain[box], target[box]
    for part in slabs(image):
        inside = brain[part]
        if not is_integer(image):
            inside = inside & np.isfinite(image[part])
        shifted = np.subtract(image[part], target.dtype.type(value), dtype=target.dtype)
        np.copyto(target[part], shifted, where=inside)


def counts_outside(image: NDArray[Any], mask: Mask, brain: Mask) -> tuple[int, int]:
    """Non-finite voxels, and voxels of a mask outside the brain."""
    parts = () if is_integer(image) else slabs(image)
    n_nonfinite = sum(int(np.count_nonzero(~np.isfinite(image[part]))) for part in parts)
    return n_nonfinite, n_outside(mask, brain)


def n_outside(mask: Mask, brain: Mask) -> int:
    """Voxels of a mask that are not in the brain."""
    return sum(int(np.count_nonzero(mask[part] > brain[part])) for part in slabs(mask))


def _border(image: NDArray[Any]) -> NDArray[Any]:
    """Finite voxels of some outer slices; a frame of one slice is less than half of them."""
    slices = [
        np.moveaxis(image, axis, 0)[[i % image.shape[axis] for i in (0, 2, 4, -1, -3, -5)]].ravel()
        for axis in range(3)
    ]
    border = np.concatenate(slices)
    return border[np.isfinite(border)]


def _deviation(image: NDArray[Any], value: float) -> NDArray[Any]:
    """Distance of each voxel from a value; 0 where it is NaN or infinite."""
    real = np.result_type(image.dtype, np.float32)
    with np.errstate(all="ignore"):
        distance = np.subtract(image, real.type(value), dtype=real)
    np.abs(distance, out=distance)
    if not is_integer(image):
        np.copyto(distance, 0, where=~np.isfinite(distance))
    return distance


def is_integer(image: NDArray[Any]) -> bool:
    """Whether all values are finite."""
    return np.issubdtype(image.dtype, np.integer)


def _highest_and_low(
    image: NDArray[Any], value: float, is_outside: Mask, low: float
) -> tuple[NDArray[Any], int]:
    """The highest deviations outside, at least all above `FEW`; and how many are below a limit."""
    some = (slice(None), slice(None, None, SPARSE), slice(None, None, SPARSE))
    sample = _deviation(image[some][is_outside[some]], value)
    bound = np.percentile(sample, 100 - 4 * (100 - FEW)) if sample.size else 0.0
    found, n_low = _from(image, value, is_outside, bound, low)
    if _rank(found.size, np.count_nonzero(is_outside)) < 0:  # the sample was no fair one
        return _from(image, value, is_outside, 0.0, low)
    return found, n_low


def _from(
    image: NDArray[Any], value: float, is_outside: Mask, bound: float, low: float
) -> tuple[NDArray[Any], int]:
    """The deviations outside from a bound on; and how many are below a limit."""
    found, n_low = [], 0
    for part in slabs(image):
        outside, deviation = is_outside[part], _deviation(image[part], value)
        found.append(deviation[outside & (deviation >= bound)])
        n_low += int(np.count_nonzero(outside & (deviation < low)))
    return np.concatenate(found), n_low


def _rank(n_highest: int, n: int) -> float:
    """Position of the percentile `FEW` of n values among the highest of them."""
    return (n - 1) * FEW / 100 - (n - n_highest)


def _nearly_all(highest: NDArray[Any], n: int) -> float:
    """What all but a few of n values are below, from the highest of them."""
    share = _rank(highest.size, n) / max(highest.size - 1, 1)
    return float(np.percentile(highest, 100 * share))
