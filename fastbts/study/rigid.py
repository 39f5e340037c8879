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
MAX_ROUNDS = 30

Vector = NDArray[np.float64]
Score = Callable[[Vector], Vector]
"""Poses (K, 6) -> scores (K,)."""


def rotation(turn: Vector) -> Vector:
    """Matrix (3, 3) of the first three numbers of a pose."""
    x, y, z = turn / (4 * ARM_MM)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    square = x * x + y * y + z * z
    return np.eye(3) + (4 * (1 - square) * cross + 8 * cross @ cross) / (1 + square) ** 2


def matrix_of(pose: Vector, centre: Vector) -> Vector:
    """Matrix (4, 4) of a pose: a rotation about the centre, then a translation; in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(pose[:3])
    matrix[:3, 3] = centre + pose[3:] - matrix[:3, :3] @ centre
    return matrix


_PAIRS = list(combinations(range(6), 2))
_STENCIL = np.array(
    [np.zeros(6), *np.eye(6), *-np.eye(6), *(np.eye(6)[i] + np.eye(6)[j] for i, j in _PAIRS)]
)
"""Poses (28, 6) that determine a quadratic function."""


def _newton_step(scores: Vector) -> Vector:
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


def highest(score: Score, pose: Vector, step_mm: float, last_mm: float) -> tuple[Vector, float]:
    """Climbs from a pose: fits a quadratic over steps of `step_mm`, goes to the best pose found,
    and halves the step where there is none, down to `last_mm`.

    The scores need no derivative, and may be rough on a scale below `last_mm`.

    Returns:
        The pose (6,) and its score.
    """
    best = float("-inf")
    for _ in range(MAX_ROUNDS):
        around = pose + step_mm * _STENCIL
        scores = score(around)
        ahead = pose + np.outer((0.5, 1.0, 1.5), step_mm * _newton_step(scores))
        tried, values = np.vstack([around, ahead]), np.append(scores, score(ahead))
        winner = int(values.argmax())
        moved = np.linalg.norm(tried[winner] - pose) / step_mm
        pose, best = tried[winner], float(values[winner])
        if moved < 1:
            step_mm /= 2
        if step_mm < last_mm:
            break
    return pose, best
