import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbts.pipeline.window import WindowPlan, axis_starts, axis_weights, fitted_side, fitted_size


def test_starts_by_hand() -> None:
    assert axis_starts(10, 4, 0.5).tolist() == [0, 2, 4, 6]
    assert axis_starts(10, 4, 0.0).tolist() == [0, 3, 6]
    assert axis_starts(4, 4, 0.5).tolist() == [0]
    assert axis_starts(2, 4, 0.5).tolist() == [-1], "a single window is centred"


def test_weights_by_hand() -> None:
    # Two windows of 2 over 3 voxels: the ends belong to one window, the middle to both equally.
    weights = axis_weights(np.array([0, 1]), 3, 2)
    np.testing.assert_allclose(weights, [[1, 0.5], [0.5, 1]])


def test_window_beyond_the_tensor_counts_only_inside() -> None:
    np.testing.assert_array_equal(axis_weights(np.array([-1]), 2, 4), [[0, 1, 1, 0]])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    size=st.tuples(*[st.integers(2, 16)] * 3),
    overlap=st.floats(0, 0.9),
)
def test_partition_of_unity(
    shape: tuple[int, int, int], size: tuple[int, int, int], overlap: float
) -> None:
    plan = WindowPlan.cover(shape, size, overlap)
    total = np.zeros(shape)
    for b, origin in enumerate(plan.origins):
        product = np.einsum("i,j,k->ijk", *(axis[b].astype(np.float64) for axis in plan.weights))
        low, high = np.maximum(origin, 0), np.minimum(origin + size, shape)
        into = tuple(slice(a, z) for a, z in zip(low, high, strict=True))
        out_of = tuple(slice(a - o, z - o) for a, z, o in zip(low, high, origin, strict=True))
        total[into] += product[out_of]
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_windows_are_no_larger_than_their_number_needs() -> None:
    shape, most = (160, 192, 144), (144, 176, 144)
    assert fitted_size(shape, most, 0.5, 16) == (112, 128, 144)
    assert len(WindowPlan.cover(shape, most, 0.5)) == 4
    plan = WindowPlan.cover(shape, (112, 128, 144), 0.5)
    assert plan.origins.tolist() == [[d, h, 0] for d in (0, 48) for h in (0, 64)]


@settings(max_examples=300, deadline=None)
@given(
    n_strides=st.integers(2, 30),
    most=st.integers(2, 12),
    stride=st.integers(1, 16),
    overlap=st.floats(0, 0.9),
)
def test_fitted_sides(n_strides: int, most: int, stride: int, overlap: float) -> None:
    n, most = n_strides * stride, most * stride
    side = fitted_side(n, most, overlap, stride)
    starts = axis_starts(n, side, overlap)
    assert 2 * stride <= side <= min(n, most), "networks take no less"
    assert side % stride == 0
    assert len(starts) == len(axis_starts(n, most, overlap))
    assert np.diff(starts, prepend=0).max() <= side * (1 - overlap) + 1, "they overlap enough"
    shorter = side - stride
    assert not shorter or len(axis_starts(n, shorter, overlap)) > len(starts)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_neighbours_overlap_enough(overlap: float) -> None:
    steps = np.diff(axis_starts(155, 48, overlap))
    assert steps.max() <= 48 * (1 - overlap) + 1
