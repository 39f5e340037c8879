"""Rigid registration of two images of one patient, by normalised mutual information.

Poses move the fixed image; see `fastbts.study.rigid`. The search begins from many poses at the
coarsest of three levels, climbs from the best of them, and refines the winner. It is repeatable:
points are drawn with a fixed seed, and the result does not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError, InputError
from fastbts.ops import mutual_information
from fastbts.study.prepared import Prepared
from fastbts.study.rigid import Poses, highest, inverse, matrix_of, one_by_one, turned
from fastbts.study.spatial import Floats
from fastbts.volume import Geometry


@dataclass(frozen=True)
class Level:
    """How fine one level is.

    Attributes:
        sigma_mm: Blur of both images.
        n_points: Where they are compared.
        step_mm: Of the search at first.
        last_mm: Step at which it ends.
    """

    sigma_mm: float
    n_points: int
    step_mm: float
    last_mm: float


LEVELS = (Level(4.0, 8_000, 6.0, 1.0), Level(2.0, 30_000, 1.5, 0.3), Level(0.5, 80_000, 0.5, 0.1))
START_TURN_DEGREES = 15.0
START_SHIFTS_MM = (-30.0, -15.0, 15.0, 30.0)  # upwards: fields of view end anywhere in the neck
N_CLIMBS = 3
STARTS_APART_MM = 8.0
HALF = 0.5  # poses with fewer of the points in the moving image score less

NUDGE_MM = 5.0
LEAST_INFORMATION = 0.02  # of nmi - 1: noise has 0.001, two images of a head 0.05 and more
MIN_QUALITY = 0.2
"""Measured on 16 real cases and a raw head: 0.26 to 0.58 where the registration was right; at most
0.14 for another patient, 0.10 for images upside down. The brain is nearly symmetric: a mirrored
image has 0.13 to 0.24, so that only most of these are refused."""
MIN_INSIDE = 0.2


class Image(Protocol):
    """What registration reads of an image; a `Series` has it."""

    @property
    def label(self) -> str:
        """Name for messages."""

    @property
    def voxels(self) -> NDArray[Any]:
        """(i, j, k), real."""

    @property
    def geometry(self) -> Geometry:
        """Its voxel grid."""


@dataclass(frozen=True, eq=False)
class Registration:
    """The rigid movement that aligns two images of a patient.

    Attributes:
        matrix: RAS+ position in the moving image -> that in the fixed image, in mm, (4, 4).
        nmi: Normalised mutual information, 1 to 2.
        quality: How sharp the maximum is: the share of `nmi` - 1 that is lost when the image is
            moved or turned by 5 mm more, mean over 12 directions. It tells right registrations from
            wrong ones better than `nmi`, which depends on the contrasts.
        inside: Share of the fixed image's head that is inside the moving image, 0 to 1.
        moved_mm: How far the centre of the head moved.
        turned_degrees: How far the head turned.
    """

    matrix: Floats
    nmi: float
    quality: float
    inside: float
    moved_mm: float
    turned_degrees: float


class Agreement:
    """NMI of two images at one level, as a function of the pose of the fixed one."""

    def __init__(self, fixed: Prepared, moving: Prepared, level: Level, n_threads: int) -> None:
        points = fixed.points(level.n_points)
        values = fixed.level(level.sigma_mm, moving).at(points)
        self.points, self.values = points.astype(np.float32), (values + 0.5).astype(np.uint8)
        self.moving = moving.level(level.sigma_mm, fixed)
        self.to_voxel = np.linalg.inv(self.moving.affine)
        self.centre, self.n_threads = fixed.centre, n_threads

    def measured(self, poses: Poses) -> Floats:
        """NMI and share of points inside the moving image, (K, 2)."""
        maps = np.stack([(self.to_voxel @ matrix_of(pose, self.centre))[:3] for pose in poses])
        return mutual_information(
            self.points, self.values, self.moving.voxels, maps, self.n_threads
        )

    def score(self, poses: Poses) -> Floats:
        """What is to be high, (K,): a few points inside say little."""
        nmi, inside = self.measured(poses).T
        return (nmi - 1) * np.minimum(1, inside / HALF)


def register(moving: Image, fixed: Image, n_threads: int = 0) -> Registration:
    """Finds the rigid movement between two images of one patient.

    Args:
        moving: Any contrast, resolution and field of view.
        fixed: The image that the other is brought to.
        n_threads: 0 for all CPUs.

    Raises:
        InputError: An image is constant.
        GeometryError: The images cannot be aligned reliably.
    """
    still, other = _prepared(fixed), _prepared(moving)
    pose = _searched(Agreement(still, other, LEVELS[0], n_threads), still, other)
    for level in LEVELS[1:]:
        agreement = Agreement(still, other, level, n_threads)
        pose = highest(agreement.score, pose, level.step_mm, level.last_mm)
    found = _registration(agreement, pose)
    _refuse_unless_reliable(found, moving.label, fixed.label)
    return found


def _prepared(image: Image) -> Prepared:
    ready = Prepared.of(image.voxels, image.geometry.affine)
    if ready.is_empty:
        raise InputError(
            f"{image.label}: expected an image of a head to register, got a constant one; leave it "
            "out or choose another series"
        )
    return ready


def _searched(agreement: Agreement, still: Prepared, other: Prepared) -> Floats:
    """The best pose at the coarsest level."""
    starts = _starts(other.centre - still.centre)
    order = np.argsort(-agreement.score(starts), kind="stable")
    apart = one_by_one(starts[order], STARTS_APART_MM)[:N_CLIMBS]
    step, last = LEVELS[0].step_mm, LEVELS[0].last_mm
    climbed = np.stack([highest(agreement.score, start, step, last) for start in apart])
    best: Floats = climbed[agreement.score(climbed).argmax()]
    return best


def _starts(offset_mm: Floats) -> Poses:
    """No shift; centre onto centre, also higher and lower; each also turned about each axis."""
    up = np.array([0.0, 0.0, 1.0])
    shifts = [np.zeros(3), offset_mm, *(offset_mm + mm * up for mm in START_SHIFTS_MM)]
    turn = np.deg2rad(START_TURN_DEGREES)
    turns = [turned(axis) for axis in (np.zeros(3), *turn * np.eye(3), *-turn * np.eye(3))]
    return np.array([[*turn, *shift] for shift in shifts for turn in turns])


def _registration(agreement: Agreement, pose: Floats) -> Registration:
    """What is known about a pose at the finest level."""
    nmi, inside = agreement.measured(pose[None])[0]
    nudged = agreement.measured(pose + NUDGE_MM * np.vstack([np.eye(6), -np.eye(6)]))[:, 0]
    matrix = matrix_of(pose, agreement.centre)
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return Registration(
        matrix=inverse(matrix),
        nmi=float(nmi),
        quality=float((nmi - nudged.mean()) / max(nmi - 1, LEAST_INFORMATION)),
        inside=float(inside),
        moved_mm=float(np.linalg.norm(pose[3:])),
        turned_degrees=float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _refuse_unless_reliable(found: Registration, moving: str, fixed: str) -> None:
    """Never a silent mask in a wrong place."""
    if found.inside < MIN_INSIDE:
        raise GeometryError(
            f"{moving}: only {found.inside:.0%} of the head in {fixed} is inside this image, "
            f"expected at least {MIN_INSIDE:.0%}; choose a series that covers the head"
        )
    if found.quality < MIN_QUALITY:
        raise GeometryError(
            f"{moving}: could not be registered to {fixed}: quality {found.quality:.2f}, expected "
            f"at least {MIN_QUALITY}; check that both show the head of one patient, the right way "
            "up, or register them with another program"
        )
