"""What a user writes around a network in NumPy: crop to the brain, z-score, thresholds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from benchmarks.peers.contender import Spec, Stages

NCR, ED, ET = 1, 2, 4
Slices = tuple[slice, ...]
AROUND = "NumPy: crop, clip, z-score, one pass, thresholds"


class OnePass(ABC):
    """A contender that runs the network once, over the brain box, with these steps around it."""

    _spec: Spec

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        clock = Stages()
        with clock("prepare"):
            case = prepared(zyx(images, affine), self._spec)
        with clock("network"):
            logits = self._logits(case.tensor)
        with clock("label"):
            labels = labels_of(logits[0], case, images.shape[1:], affine, self._spec)
        self.stages_ms = clock.ms
        return labels

    @abstractmethod
    def _logits(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1, 4, D, H, W) -> (1, 3, D, H, W)."""


def zyx(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """A view of (..., X, Y, Z) as stored, in the axes (..., Z, Y, X) of RAS+ that networks read."""
    last = array if array.ndim == 3 else np.moveaxis(array, 0, -1)
    return orientations.apply_orientation(last, orientations.io_orientation(affine)).T


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case ready for the network.

    Attributes:
        tensor: (1, 4, D, H, W) float32; D, H, W multiples of the stride, the brain in the middle.
        box: The brain box as an index of the volume's (Z, Y, X).
        inside: The same of the tensor's (D, H, W).
    """

    tensor: NDArray[np.float32]
    box: Slices
    inside: Slices


def prepared(view: NDArray[Any], spec: Spec) -> Prepared:
    """Crops to the brain, clips and normalises each image over the brain, pads to the stride."""
    brain = (view != 0).any(axis=0)
    box = _box(brain)
    sizes = [side.stop - side.start for side in box]
    padded = [-(-max(n, 2 * spec.stride) // spec.stride) * spec.stride for n in sizes]
    starts = [(p - n) // 2 for p, n in zip(padded, sizes, strict=True)]
    inside = tuple(slice(s, s + n) for s, n in zip(starts, sizes, strict=True))
    tensor, cut = np.zeros((1, len(view), *padded), np.float32), brain[box]
    for image, target in zip(view, tensor[0], strict=True):
        values = image[box][cut].astype(np.float32)
        values = np.clip(values, *np.percentile(values, spec.percentiles))
        target[inside][cut] = (values - values.mean()) / values.std()
    return Prepared(tensor, box, inside)


def _box(brain: NDArray[np.bool_]) -> Slices:
    sides = [np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def labels_of(
    logits: NDArray[np.float32], case: Prepared, shape: tuple[int, ...], affine: Any, spec: Spec
) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) as stored, of the logits (3, D, H, W) of a prepared case."""
    inside = logits[(slice(None), *case.inside)] >= spec.least_logits
    labels = np.zeros(shape[::-1], np.uint8).T
    zyx(labels, affine)[case.box] = region_labels(inside, spec)
    return labels


def region_labels(regions: NDArray[np.bool_], spec: Spec) -> NDArray[np.uint8]:
    """Labels of WT, TC and ET, (3, ...), with the engine's rules for small parts; stray core, which
    the cases measured do not have, is left to fastbts."""
    labels = np.zeros(regions.shape[1:], np.uint8)
    for region, value in zip(regions, (ED, NCR, ET), strict=True):
        labels[region] = value
    if spec.min_part_mm3:
        labels[_small(labels > 0, math.ceil(spec.min_part_mm3))] = 0
    enhancing = labels == ET if spec.min_et_mm3 else None
    if enhancing is not None and enhancing.sum() < spec.min_et_mm3:
        labels[enhancing] = NCR
    return labels


def _small(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Voxels of connected parts of fewer voxels."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    small = np.bincount(parts.ravel()) < least
    small[0] = False
    return small[parts]
