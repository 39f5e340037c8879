from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, RAGGED, orientations


def full_box(labels: NDArray[np.uint8]) -> ops.Box:
    d, h, w = labels.shape
    return (0, d), (0, h), (0, w)


def test_by_hand(device: Ops) -> None:
    """Four parts; the one at the top right has two labels, and its three voxels touch by edges."""
    slices = [
        "11.2.",
        "....4",
        ".....",
        "..1..",
    ], [
        "....2",
        ".....",
        "3....",
        "3....",
    ]  # fmt: skip
    labels = np.array([[list(row.replace(".", "0")) for row in rows] for rows in slices]).astype(
        np.uint8
    )
    assert device.components(labels, full_box(labels), 3) == (4, 1, {1: 3, 3: 2})
    assert labels[0].tolist() == [[0, 0, 0, 2, 0], [0, 0, 0, 0, 4], [0] * 5, [0] * 5]
    assert labels[1].tolist() == [[0, 0, 0, 0, 2], [0] * 5, [0] * 5, [0] * 5]


@pytest.mark.parametrize(
    "step", [(d, h, w) for d in (0, 1) for h in (-1, 0, 1) for w in (-1, 0, 1)]
)
def test_faces_edges_and_corners_connect(device: Ops, step: tuple[int, int, int]) -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = labels[tuple(1 + s for s in step)] = 1
    assert device.components(labels, full_box(labels), 0) == (1, 1, {})


def test_a_gap_of_one_separates(device: Ops) -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[2, 1, 0] = labels[0, 0, 2] = 1
    assert device.components(labels, full_box(labels), 0).n_before == 3


def test_parts_joined_in_the_last_row_are_one(device: Ops) -> None:
    """A comb: its teeth are joined only by the last row, or, upside down, by the first."""
    labels = np.zeros((1, 5, 9), np.uint8)
    labels[0, :, ::2] = labels[0, 4] = 1
    assert device.components(labels, full_box(labels), 29) == (1, 1, {})
    assert device.components(labels[:, ::-1], full_box(labels), 30) == (1, 0, {1: 29})


def noise(shape: tuple[int, int, int], density: float, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 5, shape) * (rng.random(shape) < density)).astype(np.uint8)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("density", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("shape", [*RAGGED[:-1], (0, 4, 4)])
def test_agrees_with_the_reference(
    device: Ops, shape: tuple[int, int, int], density: float, n_threads: int
) -> None:
    labels = noise(shape, density)
    before = labels.copy()
    expected, n_before, n_after = reference.components(labels, full_box(labels), 4)
    values, n_removed = np.unique(labels[labels != expected], return_counts=True)
    result = device.components(labels, full_box(labels), 4, n_threads)
    assert result == (
        n_before,
        n_after,
        dict(zip(values.tolist(), n_removed.tolist(), strict=True)),
    )
    assert np.array_equal(labels, expected)
    assert device.components(before, full_box(before), 0, n_threads) == (n_before, n_before, {})


def test_only_the_box_counts(device: Ops) -> None:
    """A part that the box cuts in two is two parts, and voxels outside are unchanged."""
    labels = noise((9, 10, 11), 0.2)
    box = ((1, 8), (0, 6), (3, 10))
    expected, n_before, n_after = reference.components(labels, box, 5)
    assert device.components(labels, box, 5)[:2] == (n_before, n_after)
    assert np.array_equal(labels, expected)
    assert expected.any()


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    labels = noise((7, 9, 11), 0.12)
    expected, _, _ = reference.components(labels, full_box(labels), 3)
    for view in orientations(labels):
        device.components(view, full_box(labels), 3)
        assert np.array_equal(view, expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0, 0.5), min_voxels=st.integers(0, 20))
def test_removing_again_changes_nothing(seed: int, density: float, min_voxels: int) -> None:
    labels = noise((6, 7, 8), density, seed)
    first = ops.components(labels, full_box(labels), min_voxels)
    assert ops.components(labels, full_box(labels), min_voxels) == (
        first.n_after,
        first.n_after,
        {},
    )


def test_agrees_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = noise((30, 40, 50), 0.06)
    parts, n = ndimage.label(labels, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    expected = np.where(sizes[parts] < 6, 0, labels)
    assert ops.components(labels, full_box(labels), 6)[:2] == (n, (sizes[1:] >= 6).sum())
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"box": ((0, 4), (0, 5), (0, 99))},
            r"components: box: expected to be inside labels of shape \(4, 5, 6\), got",
        ),
        ({"min_voxels": -1}, r"components: min_voxels: expected 0 or more, got -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    labels = np.ones((4, 5, 6), np.uint8)
    with pytest.raises(OptionsError, match=message):
        ops.components(**{"labels": labels, "box": full_box(labels), "min_voxels": 999, **change})
    assert labels.all()


def test_other_labels_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"components: labels: expected uint8 \(D, H, W\), got int16"
    ):
        ops.components(np.zeros((2, 2, 2), np.int16), ((0, 2),) * 3, 1)  # type: ignore[arg-type]
    labels = np.zeros((2, 2, 2), np.uint8)
    labels.setflags(write=False)
    with pytest.raises(InputError, match=r"components: labels: .* which is read-only"):
        ops.components(labels, ((0, 2),) * 3, 1)


def test_counts_go_into_a_given_array() -> None:
    labels, counts = np.array([[[3, 0, 1, 1]]], np.uint8), np.full(258, 7, np.int64)
    assert ops.components(labels, full_box(labels), 2, counts=counts) == (2, 1, {3: 1})
    assert np.argwhere(counts).ravel().tolist() == [0, 1, 2 + 3]
    with pytest.raises(
        InputError, match=r"components: counts: expected shape \(258\), got \(257\)"
    ):
        ops.components(labels, full_box(labels), 9, counts=counts[1:])
    assert labels.tolist() == [[[0, 0, 1, 1]]]
