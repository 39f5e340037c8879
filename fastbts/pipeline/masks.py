"""Small operations on masks (D, H, W) of bool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbts import ops

Mask = NDArray[np.bool_]


def largest_part(mask: Mask, n_threads: int = 0) -> Mask:
    """The largest connected part (26-connectivity); with it, others that are half as large."""
    d, h, w = mask.shape
    n_least = int(np.count_nonzero(mask))
    part = np.zeros(mask.shape, np.uint8)
    while n_least > 1 and not part.any():
        n_least = n_least // 2 + n_least % 2
        part = mask.astype(np.uint8)
        ops.components(part, ((0, d), (0, h), (0, w)), n_least, n_threads)
    return part.astype(bool) if n_least > 1 else mask


def bounds_of(mask: Mask, n_threads: int = 0) -> tuple[slice, slice, slice]:
    """The smallest box around a mask; empty for an empty one."""
    bounds = ops.brain_box(mask[None].view(np.uint8), n_threads).bounds
    d, h, w = (slice(begin, end) for begin, end in bounds)
    return d, h, w


def dilated(mask: Mask, n: int, n_threads: int = 0) -> Mask:
    """The mask and all voxels up to n away from it along each axis (a cube)."""
    sides = zip(bounds_of(mask, n_threads), mask.shape, strict=True)
    box = tuple(slice(max(s.start - n, 0), min(s.stop + n, side)) for s, side in sides)
    wider = np.zeros_like(mask)
    wider[box] = _dilated(mask[box], n)
    return wider


def _dilated(mask: Mask, n: int) -> Mask:
    for axis in range(3):
        rows = np.moveaxis(mask, axis, 0)
        reach, most = 0, min(n, len(rows) - 1)
        while reach < most:
            shift = min(most - reach, 2 * reach + 1)  # leaves no gap
            wider = rows.copy(order="K")  # of memory
            wider[shift:] |= rows[:-shift]
            wider[:-shift] |= rows[shift:]
            rows, reach = wider, reach + shift
        mask = np.moveaxis(rows, 0, axis)
    return mask


def filled(mask: Mask, n_threads: int = 0) -> Mask:
    """The mask without holes: all that the outside does not touch."""
    outside = largest_part(np.pad(~mask, 1, constant_values=True), n_threads)
    inner: Mask = ~outside[1:-1, 1:-1, 1:-1]
    return inner
