"""Arrays of the same values on other strides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
"""Element types an image may have."""

N_THREADS = (1, 2, 3)

RAGGED = ((1, 1, 1), (1, 7, 13), (13, 1, 7), (7, 13, 1), (15, 16, 17), (17, 33, 65))
"""Sizes of one, primes, and one less or more than a tile, a group of 8 or a cache line."""


def restrided(array: NDArray[Any], axes: tuple[int, ...], steps: tuple[int, ...]) -> NDArray[Any]:
    """The array with its last three axes stored in this order and these directions."""
    lead = array.ndim - 3
    order: tuple[int, ...] = (*range(lead), *(lead + axis for axis in axes))
    flips: tuple[Any, ...] = (..., *(slice(None, None, step) for step in steps))
    stored = np.ascontiguousarray(array.transpose(order)[flips])
    view: NDArray[Any] = stored[flips].transpose(np.argsort(order))
    return view


def orientations(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in all 48 ways to store its last three axes."""
    for axes, steps in product(permutations(range(3)), product((1, -1), repeat=3)):
        yield restrided(array, axes, steps)


def noise_image(
    shape: tuple[int, int, int], dtype: str, n_modalities: int = 2, seed: int = 0
) -> NDArray[Any]:
    """Noise inside an ellipsoid, zero around it; (M, D, H, W). Signed types: negative, too."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij"
    )
    inside = sum(axis**2 for axis in grid) < 0.8
    spread, centre = (25, 60) if dtype[1] == "1" else (300, 900)
    noise = rng.normal(centre, spread, (n_modalities, *shape)).clip(1, None)
    sign = np.where(rng.random(noise.shape) < 0.2, -1, 1) if dtype[0] != "u" else 1
    values = noise * sign * inside
    return (values if dtype[0] == "f" else values.round()).astype(dtype)
