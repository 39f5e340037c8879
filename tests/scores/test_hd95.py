"""HD95 by hand, by brute force and by MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance

from fastbts.scores.hd95 import hd95, surface_voxels
from tests.scores.masks import line

MM = (1.0, 1.0, 1.0)
masks = arrays(np.bool_, (5, 6, 7)).filter(lambda mask: bool(mask.any()))


def brute_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Every pair of surface voxels, the surface voxel by voxel."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        return (
            np.array(
                [
                    p
                    for p in np.argwhere(mask)
                    if not all(padded[tuple(p + 1 + step)] for step in steps)
                ]
            )
            * spacing
        )

    distances = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=2)
    return max(np.percentile(distances.min(axis), 95) for axis in (0, 1))


def test_hd95_by_hand() -> None:
    assert hd95(line(5), line(9), (1, 1, 2.5)) == 10
    assert hd95(line(5), line(5), MM) == 0
    # From 1..20 to 1..21 all distances are 0; back, 20 are 0 and one is 1: the 95th percentile is
    # the 20th.
    assert hd95(line(*range(1, 21)), line(*range(1, 22)), MM) == 0
    assert hd95(line(*range(1, 11)), line(*range(1, 12)), MM) == pytest.approx(0.5), (
        "between the 10th (0) and the 11th (1)"
    )


def test_surface_by_hand() -> None:
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    assert len(surface_voxels(cube)) == 5**3 - 3**3
    assert len(surface_voxels(np.ones((3, 3, 3), bool))) == 26, (
        "the image's border counts as outside"
    )
    np.testing.assert_array_equal(surface_voxels(line(4)), [[1, 1, 4]])


def test_hd95_refuses_empty_masks() -> None:
    with pytest.raises(ValueError, match="a mask is empty"):
        hd95(line(1), line(), MM)


@settings(max_examples=30, deadline=None)
@given(masks, masks, st.tuples(*[st.floats(0.5, 5)] * 3))
def test_hd95_properties(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> None:
    distance = hd95(a, b, spacing)
    assert distance == pytest.approx(brute_hd95(a, b, spacing))
    assert distance == pytest.approx(hd95(b, a, spacing)), "symmetry"
    x, y, z = spacing
    assert hd95(a, b, (2 * x, 2 * y, 2 * z)) == pytest.approx(2 * distance)
    assert hd95(a.T, b.T, (z, y, x)) == pytest.approx(distance)
    assert hd95(a, a, spacing) == 0


@settings(max_examples=10, deadline=None)
@given(masks, masks)
def test_hd95_equals_monai(a: np.ndarray, b: np.ndarray) -> None:
    spacing = (1.0, 2.0, 3.0)
    one, two = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
    theirs = compute_hausdorff_distance(
        one, two, include_background=True, percentile=95, spacing=spacing
    )
    assert hd95(a, b, spacing) == pytest.approx(theirs.item(), rel=1e-5)
