from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastbts import InputError, ops
from fastbts.ops import reference
from fastbts.pipeline.window import axis_weights
from tests.ops.devices import Ops, available_devices, on
from tests.ops.registry import OPS
from tests.ops.views import N_THREADS, restrided
from tests.tolerances import assert_close


def test_4x4_by_hand(device: Ops) -> None:
    """Windows of 4 rows and 3 columns overlap in two columns, where each weighs one half."""
    logits = np.array([2, 4], np.float32).reshape(2, 1, 1, 1, 1) * np.ones(
        (2, 1, 1, 4, 3), np.float32
    )
    origins = np.array([[0, 0, 0], [0, 0, 1]], np.int32)
    weights = (
        np.ones((2, 1), np.float32),
        np.ones((2, 4), np.float32),
        np.array([[1, 0.5, 0.5], [0.5, 0.5, 1]], np.float32),
    )
    total = np.zeros((1, 1, 4, 4), np.float32)
    device.blend(logits, origins, weights, total)
    assert total[0, 0].tolist() == [[2, 3, 3, 4]] * 4
    device.blend(logits, origins, weights, total)
    assert total[0, 0].tolist() == [[4, 6, 6, 8]] * 4  # adds to what is there


Example = tuple[NDArray[np.float32], NDArray[np.int32], reference.Weights, NDArray[np.float32]]
"""Logits, origins, weights, total."""


def example(size: ops.Size, window: ops.Size, n_windows: int = 6, seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    arguments = OPS["blend"].example(rng, size, window=window, n_windows=n_windows)
    logits, origins, weights, total = arguments.values()
    return logits, origins, weights, total


def peer(
    logits: NDArray[np.float32],
    origins: NDArray[np.int32],
    weights: reference.Weights,
    total: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The same sum in NumPy float32."""
    result = total.copy()
    wd, wh, ww = weights
    for b, origin in enumerate(origins.tolist()):
        lo = [max(0, -o) for o in origin]
        hi = [
            min(w, n - o) for w, n, o in zip(logits.shape[2:], total.shape[1:], origin, strict=True)
        ]
        if all(end > begin for begin, end in zip(lo, hi, strict=True)):
            d, h, w = (slice(*bounds) for bounds in zip(lo, hi, strict=True))
            where = tuple(
                slice(o + begin, o + end) for o, begin, end in zip(origin, lo, hi, strict=True)
            )
            weight = wd[b, d, None, None] * wh[b, h, None] * ww[b, w]
            result[(slice(None), *where)] += weight * logits[b, :, d, h, w]
    return result


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (4, 5, 6), (5, 6, 7), (6, 7, 8)])
def test_agrees_with_the_reference(device: Ops, shape: ops.Size, n_threads: int) -> None:
    logits, origins, weights, total = example(shape, window=(5, 6, 7))
    exact = reference.blend(logits, origins, weights, total)
    expected = peer(logits, origins, weights, total)
    device.blend(logits, origins, weights, total, n_threads)
    assert_close(total, expected, exact)


@st.composite
def axes(draw: st.DrawFn, most_voxels: int, most_in_window: int) -> tuple[int, int, list[int]]:
    """Voxels of an axis and of a window, and where windows begin: in any order, all covered."""
    n, window = draw(st.integers(1, most_voxels)), draw(st.integers(1, most_in_window))
    starts = [draw(st.integers(1 - window, 0))]
    while starts[-1] + window < n:
        starts.append(starts[-1] + draw(st.integers(1, window)))
    return n, window, draw(st.permutations(starts))


@pytest.mark.parametrize("device", available_devices())
@settings(max_examples=25, deadline=None)
@given(grid=st.tuples(axes(5, 3), axes(9, 5), axes(37, 19)), seed=st.integers(0, 2**32 - 1))
def test_partition_of_unity(
    device: str, grid: tuple[tuple[int, int, list[int]], ...], seed: int
) -> None:
    """Windows whose weights sum to 1 give back the volume that they were cut from."""
    tensor = (
        np.random.default_rng(seed).normal(size=(2, *(n for n, _, _ in grid))).astype(np.float32)
    )
    index = np.indices([len(starts) for _, _, starts in grid]).reshape(3, -1)
    origins = np.stack(
        [np.int32(starts)[i] for (_, _, starts), i in zip(grid, index, strict=True)], axis=1
    )
    d, h, w = (
        axis_weights(np.array(s), n, size)[i] for (n, size, s), i in zip(grid, index, strict=True)
    )
    windows = on(device).window(tensor, origins, (d.shape[1], h.shape[1], w.shape[1]))
    total = np.zeros_like(tensor)
    on(device).blend(windows, origins, (d, h, w), total)
    n_roundings = len(origins) + 6  # of the sum; of three weights and three products
    np.testing.assert_allclose(total, tensor, rtol=n_roundings * np.finfo(np.float32).eps)


def blended(logits: NDArray[np.float32], rest: Example, device: str) -> NDArray[np.float32]:
    """The windows of an example with other logits, blended into zeros."""
    _, origins, weights, like = rest
    total = np.zeros_like(like)
    on(device).blend(logits, origins, weights, total)
    return total


@pytest.mark.parametrize("device", available_devices())
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-20, 20))
def test_linear_in_logits(device: str, seed: int, power: int) -> None:
    """Exactly: for numbers of few bits, and for factors that are powers of two."""
    one = example((5, 6, 7), (4, 3, 5), seed=seed)
    factor = np.float32(2.0**power)
    assert np.array_equal(
        blended(factor * one[0], one, device), factor * blended(one[0], one, device)
    )
    d, h, w = (np.round(8 * weight) / 8 for weight in one[2])
    few_bits = (one[0], one[1], (d, h, w), one[3])
    a, b = np.round(one[0]), np.round(3 * one[0][::-1])
    assert np.array_equal(
        blended(a + b, few_bits, device),
        blended(a, few_bits, device) + blended(b, few_bits, device),
    )


def test_same_bits_for_any_threads_and_run() -> None:
    logits, origins, weights, start = example((9, 20, 30), (8, 9, 10), n_windows=20)
    totals = []
    for n_threads in (1, 1, 2, 3, 7, 0):
        totals.append(start.copy())
        ops.blend(logits, origins, weights, totals[-1], n_threads)
    assert all(np.array_equal(total, totals[0]) for total in totals)
    assert not np.array_equal(totals[0], start)


def test_outer_axes_may_have_any_strides(device: Ops) -> None:
    logits, origins, weights, total = example((5, 6, 7), (4, 4, 4))
    exact = reference.blend(logits, origins, weights, total)
    expected = peer(logits, origins, weights, total)
    view = restrided(total, (1, 0, 2), (-1, -1, 1))
    device.blend(restrided(logits, (1, 0, 2), (1, -1, 1)), origins, weights, view)
    assert_close(view, expected, exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"origins": np.zeros((5, 3), np.int32)},
            r"blend: origins: expected shape \(6, 3\) .* got \(5, 3\)",
        ),
        (
            {"h": np.ones((6, 5), np.float32)},
            r"blend: weights\[1\]: expected shape \(6, 4\), got \(6, 5\)",
        ),
        (
            {"total": np.ones((3, 5, 6, 7), np.float32)},
            r"blend: total: expected 2 regions as in logits, got 3",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    logits, origins, (d, h, w), total = example((5, 6, 7), (4, 4, 4))
    before = total.copy()
    with pytest.raises(InputError, match=message):
        ops.blend(
            logits,
            change.get("origins", origins),
            (d, change.get("h", h), w),
            change.get("total", total),
        )
    assert np.array_equal(total, before)
