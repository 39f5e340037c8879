from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, ops, reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, restrided
from tests.tolerances import assert_close


def test_4x4_by_hand(device: Ops) -> None:
    """Two windows of 4 rows and 3 columns overlap in the two columns in the middle, where each weighs one half."""
    logits = np.array([2, 4], np.float32).reshape(2, 1, 1, 1, 1) * np.ones((2, 1, 1, 4, 3), np.float32)
    origins = np.array([[0, 0, 0], [0, 0, 1]], np.int32)
    weights = (np.ones((2, 1), np.float32), np.ones((2, 4), np.float32), np.array([[1, 0.5, 0.5], [0.5, 0.5, 1]], np.float32))
    total = np.zeros((1, 1, 4, 4), np.float32)
    device.blend(logits, origins, weights, total)
    assert total[0, 0].tolist() == [[2, 3, 3, 4]] * 4
    device.blend(logits, origins, weights, total)
    assert total[0, 0].tolist() == [[4, 6, 6, 8]] * 4  # adds to what is there


Example = tuple[NDArray[np.float32], NDArray[np.int32], reference.Weights, NDArray[np.float32]]
"""Logits, origins, weights, total."""


def example(shape: tuple[int, int, int], window: tuple[int, int, int], n_windows: int = 6) -> Example:
    """Random windows of 2 regions over a volume; some reach outside it, one misses it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n_windows, 2, *window)).astype(np.float32)
    origins = np.stack([rng.integers(-w, n + 1, n_windows) for n, w in zip(shape, window, strict=True)], axis=1)
    origins[0], origins[1] = 0, 2**31 - 1
    wd, wh, ww = (rng.random((n_windows, w)).astype(np.float32) for w in window)
    total = rng.normal(size=(2, *shape)).astype(np.float32)
    return logits, origins.astype(np.int32), (wd, wh, ww), total


def peer(
    logits: NDArray[np.float32], origins: NDArray[np.int32], weights: reference.Weights, total: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The same sum in NumPy float32."""
    result = total.copy()
    wd, wh, ww = weights
    for b, origin in enumerate(origins.tolist()):
        lo = [max(0, -o) for o in origin]
        hi = [min(w, n - o) for w, n, o in zip(logits.shape[2:], total.shape[1:], origin, strict=True)]
        if all(end > begin for begin, end in zip(lo, hi, strict=True)):
            d, h, w = (slice(*bounds) for bounds in zip(lo, hi, strict=True))
            where = tuple(slice(o + begin, o + end) for o, begin, end in zip(origin, lo, hi, strict=True))
            weight = wd[b, d, None, None] * wh[b, h, None] * ww[b, w]
            result[(slice(None), *where)] += weight * logits[b, :, d, h, w]
    return result


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (4, 5, 6), (5, 6, 7), (6, 7, 8)])
def test_agrees_with_twin(device: Ops, shape: tuple[int, int, int], n_threads: int) -> None:
    logits, origins, weights, total = example(shape, window=(5, 6, 7))
    exact = reference.blend(logits, origins, weights, total)
    expected = peer(logits, origins, weights, total)
    device.blend(logits, origins, weights, total, n_threads)
    assert_close(total, expected, exact)


def test_partition_of_unity(device: Ops) -> None:
    """Overlapping windows whose weights sum to 1 reproduce the tensor they were cut from."""
    rng = np.random.default_rng(3)
    tensor = rng.normal(size=(3, 8, 12, 12)).astype(np.float32)
    origins = np.array([(0, h, w) for h in (0, 4) for w in (0, 4)], np.int32)
    profile = rng.random(8) + 0.5
    covered = np.zeros(12)
    covered[:8] += profile
    covered[4:] += profile
    first, second = profile / covered[:8], profile / covered[4:]
    weights = (
        np.ones((4, 8), np.float32),
        np.array([first, first, second, second], np.float32),
        np.array([first, second, first, second], np.float32),
    )
    total = np.zeros_like(tensor)
    device.blend(device.window(tensor, origins, (8, 8, 8)), origins, weights, total)
    np.testing.assert_allclose(total, tensor, atol=4 * np.finfo(np.float32).eps * np.abs(tensor).max())  # 4 rounded terms


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
        ({"origins": np.zeros((5, 3), np.int32)}, r"blend: origins: expected shape \(6, 3\) .* got \(5, 3\)"),
        ({"h": np.ones((6, 5), np.float32)}, r"blend: weights\[1\]: expected shape \(6, 4\), got \(6, 5\)"),
        ({"total": np.ones((3, 5, 6, 7), np.float32)}, r"blend: total: expected 2 regions as in logits, got 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    logits, origins, (d, h, w), total = example((5, 6, 7), (4, 4, 4))
    before = total.copy()
    with pytest.raises(InputError, match=message):
        ops.blend(logits, change.get("origins", origins), (d, change.get("h", h), w), change.get("total", total))
    assert np.array_equal(total, before)
