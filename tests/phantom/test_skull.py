"""The made-up head: the brain stays, and layers of known thickness lie around it."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts.phantom.case import PhantomCase, make_case
from fastbts.phantom.skull import ROOM_MM, _distance, with_skull
from fastbts.read.sample import Sample
from fastbts.volume import Volume


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return make_case(0, (80, 80, 52))


def test_distances_to_a_ball_by_hand() -> None:
    points = np.moveaxis(np.indices((40, 40, 30)), 0, -1) * np.array([2, 2, 3.0]) - [40, 40, 45]
    radius = np.linalg.norm(points, axis=-1)
    distance = _distance(radius < 20, (2, 2, 3))
    near = (radius > 20) & (radius < 36)
    assert np.abs(distance[near] - (radius[near] - 20)).mean() < 1.5
    assert distance[radius < 15].max() < 0.1


def test_the_brain_and_its_labels_stay(case: PhantomCase) -> None:
    head = with_skull(case)
    pads = [round(ROOM_MM / mm) for mm in case.volume.geometry.spacing_mm]
    inside = tuple(slice(n, -n) for n in pads)
    brain = (case.volume.data != 0).any(axis=0)
    assert np.array_equal(head.volume.data[(slice(None), *inside)][:, brain],
                          case.volume.data[:, brain])  # fmt: skip
    assert np.array_equal(head.labels[inside], case.labels)
    assert head.labels.sum() == case.labels.sum()
    first = head.volume.affine @ [*pads, 1]
    np.testing.assert_allclose(first[:3], case.volume.affine[:3, 3])


def test_the_layers_from_inside_to_outside(case: PhantomCase) -> None:
    """Along a line to the left of the brain: fluid, dark bone, bright scalp, air (T1)."""
    head = with_skull(case).volume
    brain = np.pad((case.volume.data != 0).any(axis=0), [(round(ROOM_MM / 3),) * 2] * 3)
    _i, j, k = (int(n) for n in np.argwhere(brain).mean(axis=0))
    edge = int(np.flatnonzero(brain[:, j, k])[-1])
    level = np.median(head.data[1][brain])
    line = head.data[1][edge + 1 :, j, k] / level
    assert line[:3].min() < 0.3
    assert line[2:6].max() > 1.0
    assert line[-1] < 0.2


def test_bits_depend_only_on_the_seed(case: PhantomCase) -> None:
    assert np.array_equal(with_skull(case, 1).volume.data, with_skull(case, 1).volume.data)
    assert not np.array_equal(with_skull(case, 1).volume.data, with_skull(case, 2).volume.data)


def test_a_head_is_recognised_as_unstripped(case: PhantomCase) -> None:
    volume = with_skull(case).volume
    assert not Sample.of(Volume(volume.data, volume.affine)).usable.any()
