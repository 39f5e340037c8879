"""What a scanner does to a head (D, H, W): slices, coil, noise, field of view."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SLICE_MM = (3.0, 7.0)
"""Thickness of thick slices."""
AXIS_SHARE = (0.6, 0.2, 0.2)
"""How often slices are axial, coronal and sagittal."""


def box_mean(volume: Tensor, n: int) -> Tensor:
    """Mean over n^3 voxels of (D, H, W), n odd, zeros outside; faster than avg_pool3d."""
    total = functional.pad(volume, [n // 2] * 6)
    for axis, size in enumerate(volume.shape):
        padded, total = total, total.narrow(axis, 0, size).clone()
        for start in range(1, n):
            total += padded.narrow(axis, start, size)
    return total / n**3


def sliced(image: Tensor, voxel_mm: float, rng: np.random.Generator) -> Tensor:
    """Averages over thick slices along one axis and interpolates between them."""
    size, axis = list(image.shape), int(rng.choice(3, p=AXIS_SHARE))
    coarse = list(size)
    coarse[axis] = max(2, round(size[axis] * voxel_mm / rng.uniform(*SLICE_MM)))
    averaged = functional.interpolate(image[None, None], coarse, mode="area")
    return functional.interpolate(averaged, size, mode="trilinear")[0, 0]


def bias(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiplies by a smooth field, as receive coils do."""
    knots = rng.normal(0, rng.uniform(0.05, 0.35), (1, 1, *rng.integers(2, 5, 3)))
    drawn = torch.from_numpy(knots.astype(np.float32))
    field = functional.interpolate(drawn, image.shape, mode="trilinear", align_corners=True)
    return image * field[0, 0].exp()


def noisy(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Rician noise; in some images the air is exactly 0, as after a scanner's filter."""
    noise = torch.from_numpy(rng.standard_normal((2, *image.shape), dtype=np.float32))
    noise *= 0.1 * float(rng.random()) ** 2
    scanned = ((image + noise[0]) ** 2 + noise[1] ** 2).sqrt()
    return scanned * (image > 0.01) if rng.random() < 0.3 else scanned


def field_of_view(inside: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Which voxels (D, H, W) the scan shows.

    Args:
        inside: Brain mask; the field mostly ends outside of it.
        chance: That the scan ends near the brain at one side; a quarter of it in front, behind and
            to the left and right.
        rng: Source of randomness.
    """
    seen = torch.ones(inside.shape, dtype=torch.bool)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        brain = inside.bool().any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
        if not len(brain):
            continue
        n, first, last = inside.shape[axis], int(brain[0]), int(brain[-1])
        near = chance if axis == 0 else chance / 4
        low = first - int(rng.integers(-6, 20)) if rng.random() < near else 0
        high = last + 1 + int(rng.integers(-3, 10)) if rng.random() < near else n
        keep = torch.zeros(n, dtype=torch.bool)
        keep[max(0, low) : min(n, max(high, low + 2))] = True
        seen &= keep.reshape([-1 if a == axis else 1 for a in range(3)])
    return seen
