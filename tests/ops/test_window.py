from __future__ import annotations

import numpy as np
import pytest

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, restrided


def test_by_hand(device: Ops) -> None:
    tensor = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 3, 4)
    windows = device.window(tensor, np.array([[0, 1, 1], [0, -1, 3]], np.int32), (1, 2, 2))
    assert windows.shape == (2, 1, 1, 2, 2)
    assert windows[0, 0, 0].tolist() == [[6, 7], [10, 11]]
    assert windows[1, 0, 0].tolist() == [[0, 0], [4, 0]]


ORIGINS = np.array(
    [
        (0, 0, 0),
        (1, 2, 3),
        (-1, -2, -3),
        (4, 5, 6),
        (-9, 0, 0),
        (0, 99, 0),
        (0, 0, -99),
        (2**31 - 1, -(2**31), 5),
    ],
    np.int32,
)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7), (4, 6, 7), (5, 7, 8), (6, 8, 9)])
def test_agrees_with_the_reference(device: Ops, size: tuple[int, int, int], n_threads: int) -> None:
    tensor = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype(np.float32)
    windows = device.window(tensor, ORIGINS, size, n_threads=n_threads)
    assert np.array_equal(windows, reference.window(tensor, ORIGINS, size))


def test_outer_axes_may_have_any_strides(device: Ops) -> None:
    tensor = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype(np.float32)
    view = restrided(tensor, (1, 0, 2), (-1, -1, 1))[::-1]
    origins = np.asfortranarray(ORIGINS)
    assert np.array_equal(
        device.window(view, origins, (3, 4, 5)), reference.window(view, ORIGINS, (3, 4, 5))
    )


def test_writes_all_of_out_and_nothing_else() -> None:
    tensor = np.ones((2, 5, 7, 8), np.float32)
    buffer = np.full((4, 2, 3, 4, 9), 77, np.float32)
    out = buffer[1:3, :, :, :, 2:7]
    assert ops.window(tensor, ORIGINS[1:3], (3, 4, 5), out=out) is out
    assert np.array_equal(out, reference.window(tensor, ORIGINS[1:3], (3, 4, 5)))
    out[:] = 77
    assert (buffer == 77).all()


def test_layout_of_out_is_that_of_its_strides() -> None:
    """Channels last: the last axis of out is then no run of memory."""
    tensor = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype(np.float32)
    out = np.full((len(ORIGINS), 3, 4, 5, 3), 77, np.float32)
    ops.window(tensor, ORIGINS, (3, 4, 5), out=out[..., :2].transpose(0, 4, 1, 2, 3))
    assert np.array_equal(
        out[..., :2].transpose(0, 4, 1, 2, 3), reference.window(tensor, ORIGINS, (3, 4, 5))
    )
    assert (out[..., 2] == 77).all()


def test_no_windows(device: Ops) -> None:
    assert device.window(
        np.ones((2, 5, 7, 8), np.float32), np.empty((0, 3), np.int32), (3, 4, 5)
    ).shape == (0, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("origins", "out_shape", "message"),
    [
        ((2, 2), (2, 2, 3, 4, 5), r"window: origins: expected shape \(2, 3\) .* got \(2, 2\)"),
        (
            (3, 3),
            (2, 2, 3, 4, 5),
            r"window: origins: expected shape \(2, 3\) as out has 2 windows, got \(3, 3\)",
        ),
        ((2, 3), (2, 1, 3, 4, 5), r"window: out: expected 2 modalities as in tensor, got 1"),
        (
            (2, 3),
            (2, 2, 3, 4, 6),
            r"window: out: expected \(3, 4, 5\) voxels, got shape \(2, 2, 3, 4, 6\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    origins: tuple[int, int], out_shape: tuple[int, ...], message: str
) -> None:
    tensor, out = np.ones((2, 5, 7, 8), np.float32), np.empty(out_shape, np.float32)
    with pytest.raises(InputError, match=message):
        ops.window(tensor, np.zeros(origins, np.int32), (3, 4, 5), out=out)


def test_negative_size_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"size: expected no negative sizes, got \(3, -4, 5\)"):
        ops.window(np.ones((2, 5, 7, 8), np.float32), np.zeros((1, 3), np.int32), (3, -4, 5))
