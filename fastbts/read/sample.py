"""Some voxels of each image of a case, on a grid of about 4 mm: enough to judge its quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts.device.host import HOST
from fastbts.device.interface import Workspace
from fastbts.volume import MAX_BRAIN_ML, MAX_BRAIN_SHARE, Volume, to_network_axes

SPACING_MM = 4.0
CORE_MM = 12.0  # the core is that deep inside the brain along each axis: no fat, no vessels outside
TAIL = 0.002  # share of the intensities that is clipped at each end: single voxels decide nothing
MIN_SHARE = 0.01  # of the image, for a mask that can be a brain
BACKGROUND_SPREADS = 6.0  # from the median of the border, in median deviations from it

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Coarse:
    """Every few voxels of the images, which a device may not have fetched yet.

    Attributes:
        images: Gives them in host memory, (M, D, H, W).
        spacing_mm: Along D, H, W.
    """

    images: Callable[[], Floats]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume, workspace: Workspace = HOST) -> Coarse:
        """Takes the voxels; on a device the next wait fetches them."""
        geometry = volume.geometry
        pairs = zip(geometry.ras_axes, geometry.spacing_mm, strict=True)
        spacing = {axis: mm for (axis, _), mm in pairs}
        steps = {axis: max(1, round(SPACING_MM / mm)) for axis, mm in spacing.items()}
        view = to_network_axes(workspace.put(volume.data, "images"), geometry)
        sampled = workspace.sampled(view, [steps[axis] for axis in (2, 1, 0)], "coarse images")
        z, y, x = (steps[axis] * spacing[axis] for axis in (2, 1, 0))
        return cls(workspace.get_later(sampled), (z, y, x))

    def finite_images(self) -> Floats:
        """The images, with 0 for NaN and infinity; never the memory of the case."""
        images = self.images()
        return np.where(np.isfinite(images), images, np.float32(0))


@dataclass(frozen=True, eq=False)
class Sample:
    """Voxels of each image on a coarser grid.

    Attributes:
        images: (M, D, H, W), network axes (Z, Y, X) of RAS+; NaN and infinite voxels are 0. Cut to
            where any image differs from its background.
        masks: (M, D, H, W), where each image differs from its background.
        usable: (M,), whether the mask can be a brain: not nearly empty, not nearly everything, not
            a whole head.
        brain: (D, H, W), where all images with usable masks differ from their backgrounds.
        spacing_mm: Along D, H, W.
    """

    images: Floats
    masks: Mask
    usable: Mask
    brain: Mask
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume, coarse: Coarse | None = None) -> Sample:
        """Takes every fourth voxel at 1 mm; every voxel along axes of 4 mm or more.

        Args:
            volume: The case.
            coarse: What `Coarse.of` returned for it, where it is on a device.
        """
        coarse = Coarse.of(volume) if coarse is None else coarse
        images, spacing_mm = coarse.finite_images(), coarse.spacing_mm
        masks = np.stack([not_background(image) for image in images])
        share = _share(masks)
        image_ml = volume.geometry.voxel_ml * math.prod(volume.geometry.shape)
        usable = (share >= MIN_SHARE) & (share <= MAX_BRAIN_SHARE)
        usable &= share * image_ml <= MAX_BRAIN_ML
        anything: Mask = np.any(masks, axis=0)
        box = (slice(None), *_bounds(anything))
        images, masks = np.ascontiguousarray(images[box]), np.ascontiguousarray(masks[box])
        brain: Mask = np.all(masks[usable if usable.any() else slice(None)], axis=0)
        return cls(images, masks, usable, brain, spacing_mm)

    def core(self) -> Mask:
        """(D, H, W), the brain without its outer 12 mm, where fat and vessels may be left."""
        return shrunk(self.brain, [max(1, round(CORE_MM / mm)) for mm in self.spacing_mm])


def not_background(image: Floats) -> Mask:
    """Where an image (D, H, W) differs from its border by more than the border's spread."""
    faces = (image[0], image[-1], image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1])
    border = np.concatenate([face.ravel() for face in faces])
    background = np.median(border)
    spread = np.median(np.abs(border - background))
    mask: Mask = np.abs(image - background) > BACKGROUND_SPREADS * spread
    return mask


def _share(masks: Mask) -> NDArray[np.float64]:
    """Share of each mask (M, D, H, W) that is set."""
    return np.array([np.count_nonzero(mask) / mask.size for mask in masks])


def _bounds(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box around a mask (D, H, W); the whole grid for an empty one."""
    if not mask.any():
        return slice(None), slice(None), slice(None)
    ends = (np.flatnonzero(mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1)))
    d, h, w = (slice(int(first), int(last) + 1) for first, last in ends)
    return d, h, w


def shrunk(mask: Mask, reach: Sequence[int]) -> Mask:
    """The voxels of a mask (D, H, W) whose neighbours `reach` voxels away are in it too."""
    inside = mask.copy()
    for axis, n in enumerate(reach):
        whole, part = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        part[:n] = part[-n:] = False
        part[n:] &= whole[:-n]
        part[:-n] &= whole[n:]
    return inside


def clipped(values: Floats, brain: Floats, tail: float) -> Floats:
    """Values without the extremes of the brain (n,), a share `tail` at each end; from 0 to 1."""
    low, high = int(tail * len(brain)), len(brain) - 1 - int(tail * len(brain))
    ordered = np.partition(brain, (low, high))
    bottom, top = ordered[low] / 2, ordered[high] / 2  # halves, as the range may overflow
    scale = max(top - bottom, np.float32(1e-30))
    scaled: Floats = (np.clip(values, ordered[low], ordered[high]) / 2 - bottom) / scale
    return scaled


def standardised(values: Floats) -> Floats:
    """Intensities (n,) without their extreme 0.2 % at each end, with mean 0 and deviation 1."""
    scaled = clipped(values, values, TAIL)
    centred = scaled - scaled.mean()
    unit: Floats = centred / max(float(centred.std()), 1e-30)
    return unit
