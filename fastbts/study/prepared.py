"""One of two images that are registered: where it has signal, its levels, points to compare at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.study.spatial import Floats, Indices, SpatialImage

COARSE_MM = 4.0  # voxels in which the foreground is found
# Signal is what is brighter than this share of the way from the 2nd to the 98th percentile, as in
# BET: Smith, "Fast robust automated brain extraction", 2002.
SIGNAL = 0.1
MARGIN_MM = 20.0  # of background that is kept around the signal
SHELL = 2  # coarse voxels of background around the signal with points in them
BRIGHTEST = 99.5  # percentile of the signal that becomes 255


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image for registration.

    Attributes:
        image: The image, cut to its foreground and a margin.
        foreground: Coarse, True where there is signal.
        dark: Intensity that becomes 0.
        bright: Intensity that becomes 255.
    """

    image: SpatialImage
    foreground: SpatialImage
    dark: float
    bright: float

    @staticmethod
    def of(voxels: NDArray[Any], affine: Floats) -> Prepared:
        """Finds the foreground of an image (i, j, k) with its affine."""
        whole = SpatialImage(_finite(voxels), affine).in_memory_order()
        steps = np.maximum(1, (COARSE_MM / whole.spacing_mm).round().astype(np.int64))
        coarse = whole.blurred(steps * whole.spacing_mm / 2.5, steps)
        dark, light = np.percentile(coarse.voxels, (2, 98))
        has_signal = coarse.voxels > dark + SIGNAL * (light - dark)
        signal = coarse.voxels[has_signal]
        bright = np.percentile(signal, BRIGHTEST) if signal.size else light
        foreground = SpatialImage(has_signal, coarse.affine)
        return Prepared(_cut(whole, has_signal, steps), foreground, float(dark), float(bright))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to register."""
        return not self.foreground.voxels.any()

    @cached_property
    def centre(self) -> Floats:
        """Of the foreground, in mm, (3,)."""
        return self.foreground.to_mm(np.argwhere(self.foreground.voxels)).mean(axis=0)

    def level(self, sigma_mm: float, other: Prepared) -> SpatialImage:
        """The image in 256 steps, uint8, blurred to `sigma_mm`.

        Along an axis where its voxels or those of the other image are larger it is blurred to
        them: thick slices look alike only in an image that is blurred as they are. It has about
        the voxels that the blur allows.
        """
        own, image = self.image.own_variance, self.image
        thick = np.maximum(own, other.image.variance_along(image))
        variance = np.maximum(sigma_mm**2, thick)
        steps = np.maximum(1, (np.sqrt(variance) / image.spacing_mm).astype(np.int64))
        smooth = image.blurred(np.sqrt(variance - own), steps)
        scaled = (smooth.voxels - self.dark) * (255 / (self.bright - self.dark))
        return SpatialImage((scaled + 0.5).clip(0, 255).astype(np.uint8), smooth.affine)

    def points(self, n: int, seed: int = 0) -> Floats:
        """Random positions in mm, (n, 3), spread evenly over the foreground and a shell."""
        rng = np.random.default_rng(seed)
        cells = np.argwhere(_grown(self.foreground.voxels, SHELL))
        chosen = np.sort(np.resize(rng.permutation(len(cells)), n))
        return self.foreground.to_mm(cells[chosen] + rng.uniform(-0.5, 0.5, (n, 3)))


def _finite(voxels: NDArray[Any]) -> NDArray[Any]:
    """The voxels, with 0 for NaN and infinities."""
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return voxels
    return np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0)


def _cut(whole: SpatialImage, has_signal: NDArray[np.bool_], steps: Indices) -> SpatialImage:
    """The part of an image under a coarse mask, with a margin."""
    where = np.argwhere(has_signal)
    if not where.size:
        return whole
    margin = np.ceil(MARGIN_MM / whole.spacing_mm).astype(np.int64)
    low = np.maximum(0, where.min(axis=0) * steps - margin)
    end = np.minimum(whole.voxels.shape, (where.max(axis=0) + 1) * steps + margin)
    return whole.cut(low, end)


def _grown(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """The mask with the n voxels next to it along each axis."""
    for axis in range(3):
        rows = np.moveaxis(mask, axis, 0)
        grown = rows.copy()
        for shift in range(1, n + 1):
            grown[shift:] |= rows[:-shift]
            grown[:-shift] |= rows[shift:]
        mask = np.moveaxis(grown, 0, axis)
    return mask
