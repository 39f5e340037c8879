import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbts.ops import Size
from fastbts.pipeline.window import WindowPlan, axis_starts, axis_weights, fitted_size


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


@pytest.mark.parametrize(
    ("shape", "size", "origins"),
    [
        ((96, 240, 144), (96, 240, 144), [[0, 0, 0]]),  # no more voxels than a window
        ((160, 192, 144), (160, 112, 144), [[0, 0, 0], [0, 80, 0]]),  # 2 parts, not 2 x 2
        ((192, 192, 192), (192, 192, 80), [[0, 0, 0], [0, 0, 56], [0, 0, 112]]),
    ],
)
def test_windows_compute_few_voxels(shape: Size, size: Size, origins: list[list[int]]) -> None:
    assert fitted_size(shape, (144, 176, 144), 0.25, 16) == size
    assert WindowPlan.cover(shape, size, 0.25).origins.tolist() == origins


SIDES = st.tuples(*[st.integers(2, 20)] * 3)


@settings(max_examples=300, deadline=None)
@given(n_strides=SIDES, most=SIDES, stride=st.integers(1, 16), overlap=st.floats(0, 0.9))
def test_fitted_sizes(n_strides: Size, most: Size, stride: int, overlap: float) -> None:
    shape, most = ((n * stride, m * stride, k * stride) for n, m, k in (n_strides, most))
    size = fitted_size(shape, most, overlap, stride)
    assert math.prod(size) <= math.prod(most), "the memory is bounded"
    for n, m, w in zip(shape, most, size, strict=True):
        assert w % stride == 0
        assert min(n, max(2 * stride, m / 2)) <= w <= n, "networks take no less, and see far"
        assert np.diff(axis_starts(n, w, overlap)).max(initial=0) <= w * (1 - overlap) + 1
    clipped: Size = tuple(map(min, shape, most))  # type: ignore[assignment]
    assert n_computed(shape, size, overlap) <= n_computed(shape, clipped, overlap)


def n_computed(shape: Size, size: Size, overlap: float) -> int:
    """Voxels of all windows."""
    counts = (len(axis_starts(n, w, overlap)) for n, w in zip(shape, size, strict=True))
    return math.prod(counts) * math.prod(size)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_neighbours_overlap_enough(overlap: float) -> None:
    steps = np.diff(axis_starts(155, 48, overlap))
    assert steps.max() <= 48 * (1 - overlap) + 1
