"""Rigid movements as six numbers, and a search for those under which a score is highest.

A pose is three rotations and three translations, all in mm: a rotation by theta about an axis has
4 tan(theta / 4) ARM_MM along this axis, which is about the movement at ARM_MM from the centre.
These are modified Rodrigues parameters: Schaub and Junkins, "Analytical Mechanics of Space
Systems", chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

ARM_MM = 50.0
MAX_NEWTON = 3.0  # steps that a Newton step may be long
LENGTHS = (0.5, 1.0, 1.5)  # of the Newton step that are tried
MAX_ROUNDS = 30

Floats = NDArray[np.float64]
Poses = NDArray[np.float64]
"""(K, 6)"""
Score = Callable[[Poses], Floats]
"""Poses -> scores (K,)."""


def turned(angles: Floats) -> Floats:
    """The first three numbers of a pose that turns by these angles, a rotation vector (3,)."""
    angle = np.linalg.norm(angles)
    return angles * (4 * ARM_MM * np.tan(angle / 4) / angle) if angle > 0 else angles


def rotation(turn: Floats) -> Floats:
    """Matrix (3, 3) of the first three numbers of a pose."""
    x, y, z = turn / (4 * ARM_MM)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    square = x * x + y * y + z * z
    return np.eye(3) + (4 * (1 - square) * cross + 8 * cross @ cross) / (1 + square) ** 2


def matrix_of(pose: Floats, centre: Floats) -> Floats:
    """Matrix (4, 4) of a pose: a rotation about the centre, then a translation; in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(pose[:3])
    matrix[:3, 3] = centre + pose[3:] - matrix[:3, :3] @ centre
    return matrix


def inverse(matrix: Floats) -> Floats:
    """Of a rigid matrix, (4, 4)."""
    result = np.eye(4)
    result[:3, :3] = matrix[:3, :3].T
    result[:3, 3] = -result[:3, :3] @ matrix[:3, 3]
    return result


_PAIRS = list(combinations(range(6), 2))
_STENCIL = np.array(
    [np.zeros(6), *np.eye(6), *-np.eye(6), *(np.eye(6)[i] + np.eye(6)[j] for i, j in _PAIRS)]
)
"""Poses (28, 6) that determine a quadratic function."""


def _newton_step(scores: Floats) -> Floats:
    """Where the quadratic through the scores of the stencil is highest, at most MAX_NEWTON away.

    Along directions in which it has no maximum the step goes uphill.
    """
    middle, up, down, both = scores[0], scores[1:7], scores[7:13], scores[13:]
    slope = (up - down) / 2
    curve = np.diag(up + down - 2 * middle)
    for (i, j), score in zip(_PAIRS, both, strict=True):
        curve[i, j] = curve[j, i] = score - up[i] - up[j] + middle
    bends, directions = np.linalg.eigh(curve)
    bends = np.maximum(np.abs(bends), 1e-3 * np.abs(bends).max() + 1e-12)
    step = directions @ ((directions.T @ slope) / bends)
    return step / max(1.0, float(np.linalg.norm(step)) / MAX_NEWTON)


def highest(score: Score, pose: Floats, step_mm: float, last_mm: float) -> Floats:
    """Climbs from a pose to a maximum near it.

    In each round fits a quadratic over steps of `step_mm`, and goes to the best pose that was
    tried; halves the step where this is near, down to `last_mm`. Needs no derivatives, and the
    score may be rough on a scale below `last_mm`.

    Returns:
        The pose, (6,).
    """
    for _ in range(MAX_ROUNDS):
        around = pose + step_mm * _STENCIL
        scores = score(around)
        ahead = pose + np.outer(LENGTHS, step_mm * _newton_step(scores))
        tried = np.vstack([around, ahead])
        best = tried[np.append(scores, score(ahead)).argmax()]
        is_near = np.linalg.norm(best - pose) < step_mm
        pose = best
        if is_near:
            step_mm /= 2
        if step_mm < last_mm:
            break
    return pose


def one_by_one(poses: Poses, apart_mm: float) -> list[Floats]:
    """The poses in their order, without those too near to an earlier one."""
    kept: list[Floats] = []
    for pose in poses:
        if all(np.linalg.norm(pose - other) > apart_mm for other in kept):
            kept.append(pose)
    return kept
