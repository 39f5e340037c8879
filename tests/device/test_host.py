"""Memory of the CPU that is kept between predictions."""

from __future__ import annotations

import numpy as np

from fastbts.device.host import HOST, LARGE, LentHost
from fastbts.device.lend import host_workspaces


def test_large_memory_is_kept_and_grows() -> None:
    host = LentHost()
    first = host.kept("a", (LARGE,), np.uint8)
    assert host.kept("a", (LARGE // 4,), np.float32).ctypes.data == first.ctypes.data
    larger = host.kept("a", (3, LARGE), np.float32)
    assert larger.shape == (3, LARGE)
    assert host.kept("b", (LARGE,), np.uint8).ctypes.data != larger.ctypes.data
    larger[:] = 1  # it is writable, and all of it is there


def test_small_memory_is_new() -> None:
    """Results hold counts and statistics."""
    host = LentHost()
    first, second = (host.kept("a", (4,), np.int64) for _ in range(2))
    assert not np.shares_memory(first, second)


def test_results_in_kept_memory_are_copied() -> None:
    host = LentHost()
    tensor, new = host.kept("tensor", (2, LARGE), np.uint8), np.zeros(4)
    tensor[:] = 1
    result = host.own(tensor[1:])
    host.kept("tensor", (2, LARGE), np.uint8)[:] = 2
    assert (result == 1).all()
    assert host.own(new) is new


def test_memory_without_a_prediction_is_new() -> None:
    first, second = (HOST.kept("a", (LARGE,), np.uint8) for _ in range(2))
    assert not np.shares_memory(first, second)


def test_predictions_at_the_same_time_share_no_memory() -> None:
    lender = host_workspaces()
    with lender.lend() as one, lender.lend() as other:
        arrays = [space.kept("a", (LARGE,), np.uint8) for space in (one, other)]
    assert not np.shares_memory(*arrays)
    with lender.lend() as again:
        assert any(np.shares_memory(again.kept("a", (LARGE,), np.uint8), a) for a in arrays)
