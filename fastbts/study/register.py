"""Rigid registration of two images of one patient, by normalised mutual information."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import mutual_information
from fastbts.study.rigid import ARM_MM, Score, Vector, highest, matrix_of
from fastbts.study.sampling import Picture, Sight
from fastbts.volume import Geometry


class Image(Protocol):
    """What registration reads of an image; a `Series` is one."""

    @property
    def name(self) -> str: ...
    @property
    def voxels(self) -> NDArray[Any]: ...
    @property
    def geometry(self) -> Geometry: ...


@dataclass(frozen=True)
class Level:
    """One level, from coarse to fine."""

    sigma_mm: float
    n_points: int
    step_mm: float
    last_mm: float


LEVELS = (Level(4.0, 8_000, 6.0, 1.0), Level(2.0, 30_000, 1.5, 0.3), Level(1.0, 80_000, 0.5, 0.1))
MIN_INSIDE = 0.5
N_CLIMBED = 3


@dataclass(frozen=True, eq=False)
class Registration:
    matrix: NDArray[np.float64]
    nmi: float
    inside: float
    info: dict


class Agreement:
    """NMI of two images at one level, as a score of poses of the fixed one."""

    def __init__(self, fixed: Sight, moving: Sight, level: Level, seed: int, n_threads: int):
        points = fixed.points(level.n_points, seed)
        values = fixed.level(level.sigma_mm, moving.picture).at(points)
        self.points, self.values = points.astype(np.float32), (values + 0.5).astype(np.uint8)
        self.moving = moving.level(level.sigma_mm, fixed.picture)
        self.centre, self.n_threads = fixed.centre, n_threads
        self.n = 0

    def measured(self, poses: Vector) -> Vector:
        """(K, 2): NMI and share inside."""
        to_voxel = np.linalg.inv(self.moving.affine)
        maps = np.stack([(to_voxel @ matrix_of(p, self.centre))[:3] for p in poses])
        self.n += len(poses)
        return mutual_information(
            self.points, self.values, self.moving.voxels, maps, self.n_threads
        )

    def __call__(self, poses: Vector) -> Vector:
        nmi, inside = self.measured(poses).T
        return (nmi - 1) * np.minimum(1, inside / MIN_INSIDE)


def starts(fixed: Sight, moving: Sight) -> Vector:
    """Poses (K, 6): no movement, and centre onto centre, each also turned, the latter also shifted."""
    offset = moving.centre - fixed.centre
    shifts = [np.zeros(3), offset, *(offset + (0, 0, z) for z in (-30, -15, 15, 30))]
    turns = [np.zeros(3)] + [s * ARM_MM * np.deg2rad(15) * e for e in np.eye(3) for s in (-1, 1)]
    return np.array([np.concatenate([t, s]) for s in shifts for t in turns])


def spread(poses: Vector, scores: Vector, n: int, apart_mm: float = 8.0) -> list[Vector]:
    chosen: list[Vector] = []
    for i in np.argsort(-scores):
        if all(np.linalg.norm(poses[i] - c) > apart_mm for c in chosen):
            chosen.append(poses[i])
        if len(chosen) == n:
            break
    return chosen


def register(moving: Image, fixed: Image, n_threads: int = 0) -> Registration:
    t = [time.process_time()]
    tick = lambda: t.append(time.process_time())
    seen, still = (Sight.of(x.voxels, x.geometry.affine) for x in (moving, fixed))
    tick()
    agreement = Agreement(still, seen, LEVELS[0], 0, n_threads)
    tick()
    poses = starts(still, seen)
    first = spread(poses, agreement(poses), N_CLIMBED)
    climbed = [highest(agreement, p, LEVELS[0].step_mm, LEVELS[0].last_mm) for p in first]
    pose, s0 = max(climbed, key=lambda c: c[1])
    tick()
    ns = [agreement.n]
    for level in LEVELS[1:]:
        agreement = Agreement(still, seen, level, 0, n_threads)
        tick()
        pose, s0 = highest(agreement, pose, level.step_mm, level.last_mm)
        tick()
        ns.append(agreement.n)
    nmi, inside = agreement.measured(pose[None])[0]
    matrix = np.linalg.inv(matrix_of(pose, still.centre))
    return Registration(matrix, float(nmi), float(inside), dict(
        climbed=[(np.round(c[0], 1), round(c[1], 4)) for c in climbed], pose=pose, ns=ns, cpu=np.round(np.diff(t), 2), agreement=agreement))
