from __future__ import annotations

import numpy as np
import pytest

from fastbts.study.rigid import highest, inverse, matrix_of, one_by_one, rotation, turned

CENTRE = np.array([10.0, -20, 30])


@pytest.mark.parametrize("degrees", [0, 15, 90, 170])
def test_a_turn_by_hand(degrees: float) -> None:
    """About Z, from X to Y."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    expected = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    np.testing.assert_allclose(rotation(turned(np.array([0, 0, angle]))), expected, atol=1e-12)


def test_a_pose_turns_about_the_centre() -> None:
    pose = np.array([20.0, -30, 5, 1, 2, 3])
    matrix = matrix_of(pose, CENTRE)
    np.testing.assert_allclose(matrix @ [*CENTRE, 1], [11, -18, 33, 1])
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(4), atol=1e-12)


def test_a_turn_of_one_mm_moves_by_about_one_mm() -> None:
    """50 mm away from the axis."""
    matrix = matrix_of(np.array([1.0, 0, 0, 0, 0, 0]), np.zeros(3))
    moved = matrix @ [0, 50, 0, 1] - [0, 50, 0, 1]
    assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-3)


def test_climbs_a_skew_hill_with_rough_sides() -> None:
    rng = np.random.default_rng(0)
    bend, top = rng.normal(size=(6, 6)), rng.uniform(-20, 20, 6)
    bend = bend @ bend.T + np.eye(6)

    def score(poses: np.ndarray) -> np.ndarray:
        away = poses - top
        height = -np.einsum("ki,ij,kj->k", away, bend, away)
        return height + 0.01 * np.sin(50 * poses).sum(axis=1)

    found = highest(score, np.zeros(6), step_mm=6, last_mm=0.1)
    np.testing.assert_allclose(found, top, atol=0.2)


def test_stays_where_nothing_changes() -> None:
    calls = []

    def flat(poses: np.ndarray) -> np.ndarray:
        calls.append(len(poses))
        return np.zeros(len(poses))

    assert highest(flat, np.ones(6), 4, 1).tolist() == [1] * 6
    assert calls == [28, 3] * 3, "steps of 4, 2 and 1 mm"


def test_poses_that_are_near_to_an_earlier_one_are_left_out() -> None:
    poses = np.zeros((4, 6))
    poses[:, 0] = 0, 3, 9, 12
    assert [pose[0] for pose in one_by_one(poses, 8)] == [0, 9]
