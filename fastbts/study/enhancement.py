"""Tells T1 after contrast agent from T1 before it by the images, where headers are silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastbts.errors import GeometryError, InputError
from fastbts.read.mixups import MIN_SAMPLE, PAIRS, SKEWNESS, assignments, features, measures
from fastbts.read.regrid import resample_to_grid
from fastbts.read.sample import SPACING_MM, Sample, shrunk
from fastbts.study.register import register
from fastbts.study.series import Series
from fastbts.volume import MODALITIES, Geometry, Volume

MARGIN = 2.0  # log-odds; right orders of the training's cases have 2 to 15
CORE_MM = 24.0  # compared are voxels that deep inside the head: no scalp, no skull


def aligned_enhancement(before: Series, after: Series) -> float:
    """Registers two T1-weighted images, then see `enhancement`; 0 where that fails."""
    try:
        matrix = register(after, before).matrix
    except (GeometryError, InputError):
        return 0.0
    geometry = Geometry(after.geometry.shape, matrix @ after.geometry.affine)
    return enhancement(before, replace(after, geometry=geometry, read=lambda: after.voxels))


def enhancement(before: Series, after: Series) -> float:
    """Log-odds that contrast agent was given between two T1-weighted images that are aligned.

    Returns:
        Positive if `after` looks like T1ce and `before` like T1; 0 if they do not overlap.
    """
    return (_log_odds(before, after) - _log_odds(after, before)) / 2


def _log_odds(before: Series, after: Series) -> float:
    """The same on the grid of `before` alone."""
    grid = _coarse_grid(before.geometry)
    images = [resample_to_grid(series.voxels, series.geometry, grid) for series in (before, after)]
    if not all(image.any() for image in images):
        return 0.0
    sample = Sample.of(Volume(np.stack(images), grid.affine, ("t1", "t1ce")))
    depth = [max(1, round(CORE_MM / mm)) for mm in sample.spacing_mm]
    core = np.flatnonzero(shrunk(sample.brain, depth))
    if len(core) < MIN_SAMPLE:
        return 0.0
    skewness, pairs = measures(sample.images.reshape(2, -1)[:, core])
    roles = assignments(2)
    scores = features(skewness, pairs, roles) @ np.concatenate([SKEWNESS, PAIRS.ravel()])
    t1, t1ce = MODALITIES.index("t1"), MODALITIES.index("t1ce")
    right, swapped = (
        float(scores[(roles == order).all(axis=1)][0]) for order in ((t1, t1ce), (t1ce, t1))
    )
    return right - swapped


def _coarse_grid(geometry: Geometry) -> Geometry:
    """The same field of view with voxels of about 4 mm."""
    shape = [max(2, round(n * mm / SPACING_MM)) for n, mm in _sides(geometry)]
    steps = [n * mm / m for (n, mm), m in zip(_sides(geometry), shape, strict=True)]
    affine = geometry.affine.copy()
    affine[:3, :3] *= np.divide(steps, geometry.spacing_mm)
    edge = geometry.affine @ [-0.5, -0.5, -0.5, 1]
    affine[:3, 3] = edge[:3] + affine[:3, :3] @ [0.5, 0.5, 0.5]
    return Geometry((shape[0], shape[1], shape[2]), affine)


def _sides(geometry: Geometry) -> list[tuple[int, float]]:
    return list(zip(geometry.shape, geometry.spacing_mm, strict=True))
