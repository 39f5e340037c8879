"""A made-up head around a stripped brain: fluid, skull with marrow, scalp and a neck.

The layers are as thick as in an adult head, and as bright as they are in most scans, relative to
the brain. They are round numbers, not measurements, and no evidence about real heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.phantom.case import PhantomCase
from fastbts.volume import MODALITIES, Volume

# Each layer begins so many mm outside the brain. Brightness in units of the brain's median:
# FLAIR, T1, T1ce, T2.
LAYERS = (
    (0.0, (0.25, 0.35, 0.35, 1.9)),  # fluid
    (2.5, (0.08, 0.08, 0.08, 0.08)),  # bone
    (4.5, (0.5, 0.7, 0.7, 0.5)),  # marrow
    (7.0, (0.08, 0.08, 0.08, 0.08)),
    (9.0, (0.9, 1.5, 1.5, 1.2)),  # scalp, mostly fat
)
SCALP_ENDS_MM = 16.0
NECK = 60.0, 62.0, (0.5, 0.9, 1.0, 0.6)  # half axes in mm, brightness
NOISE = 0.02  # of the brain's median
ROOM_MM = 20.0  # added to the field of view on each side, for the scalp
COARSE_MM = 3.0  # distances are measured on such a grid


def with_skull(case: PhantomCase, seed: int = 0) -> PhantomCase:
    """Puts a stripped brain into a head, in a field of view that is 20 mm larger on each side.

    Args:
        case: Stripped images with the background 0, axes along the patient's, for example LPS.
        seed: Of the noise.
    Returns:
        float32 images, with the voxels of the brain as they were, and the labels on their grid.
    """
    pads = [round(ROOM_MM / mm) for mm in case.volume.geometry.spacing_mm]
    data = _padded(case.volume.data, pads).astype(np.float32)
    affine = case.volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array(pads)
    head = Volume(data, affine, case.volume.modalities)
    brain = (data != 0).any(axis=0)
    tissue, rng = _tissue(head, brain), np.random.default_rng(seed)
    for modality, image in zip(head.modalities, head.data, strict=True):
        column, level = MODALITIES.index(modality), np.median(image[brain])
        brightness = [0.0, *(layer[1][column] for layer in LAYERS), NECK[2][column]]
        made = np.array(brightness)[tissue] + np.abs(rng.normal(0, NOISE, image.shape))
        image[~brain] = level * made[~brain]
    return replace(case, volume=head, labels=_padded(case.labels, pads))


def _padded(array: NDArray[Any], pads: Sequence[int]) -> NDArray[Any]:
    """An array (..., i, j, k) with zeros on all sides of its last three axes."""
    lead = [(0, 0)] * (array.ndim - 3)
    return np.pad(array, [*lead, *((n, n) for n in pads)])


def _tissue(head: Volume, brain: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Number of the layer of each voxel outside the brain, from 1; 0 for air."""
    distance = _distance(brain, head.geometry.spacing_mm)
    tissue = np.zeros(brain.shape, np.intp)
    for number, (start, _) in enumerate(LAYERS, 1):
        tissue[distance >= start] = number
    tissue[distance > SCALP_ENDS_MM] = 0
    points = np.moveaxis(np.indices(brain.shape), 0, -1) @ head.affine[:3, :3].T
    middle = points[brain].mean(axis=0)
    low = points[brain][:, 2].min()
    x, y, z = np.moveaxis(points - middle, -1, 0)
    column = (x / NECK[0]) ** 2 + (y / NECK[1]) ** 2 < 1
    neck = column & (z + middle[2] < low + 12) & (distance > LAYERS[-1][0])
    tissue[neck] = len(LAYERS) + 1
    return tissue


def _distance(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance of each voxel to a mask in mm, within some 5 %, up to about 20 mm.

    By steps to the 26 neighbours on a coarse grid (Borgefors 1986), then interpolated.
    """
    extent = np.multiply(mask.shape, spacing)
    d, h, w = (max(2, round(float(mm) / COARSE_MM)) for mm in extent)
    size = d, h, w
    steps = extent / size
    share = ops.resample(mask[None].astype(np.float32), size)[0]
    far = np.float32(100)
    distance = np.where(share > 0.5, (0.5 - share) * COARSE_MM, far).astype(np.float32)
    for _ in range(round(1.5 * SCALP_ENDS_MM / COARSE_MM)):
        distance = _nearer(distance, steps, far)
    i, j, k = mask.shape
    return ops.resample(distance[None], (i, j, k))[0]


def _nearer(
    distance: NDArray[np.float32], steps: NDArray[np.float64], far: np.float32
) -> NDArray[Any]:
    """One round of steps to the neighbours."""
    edged = np.pad(distance, 1, constant_values=far)
    nearest = distance
    for shift in product((-1, 0, 1), repeat=3):
        mm = np.float32(np.linalg.norm(np.multiply(shift, steps)))
        index = tuple(slice(1 + s, 1 + s + n) for s, n in zip(shift, distance.shape, strict=True))
        nearest = np.minimum(nearest, edged[index] + mm)
    return nearest
