"""The workspace of a CUDA device over a fake runtime: what is copied, kept and freed."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import numpy as np
import pytest

from fastbts.device.cuda import CudaWorkspace
from fastbts.device.lend import Workspaces, workspaces
from fastbts.errors import DeviceError, InputError
from tests.fakes.cuda_runtime import FakeCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda(n_devices=2, n_bytes=1 << 24, deferred=True)
    fake.install(monkeypatch)
    yield fake
    gc.collect()
    assert not fake.wrong_device
    assert not fake.alive(), "a workspace leaves nothing behind"


LAYOUTS = {
    "C order": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "Fortran order": np.arange(24, dtype=np.int16).reshape(4, 3, 2).T,
    "flipped": np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::-1],
    "part": np.arange(48, dtype=np.float32).reshape(4, 3, 4)[::2],
    "a number": np.array(7.0),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_arrays_go_there_and_back(cuda: FakeCuda, name: str) -> None:
    array = LAYOUTS[name]
    workspace = CudaWorkspace(1)
    there = workspace.put(array, "image")
    (back,) = workspace.get(there)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    assert sum(cuda.copied("HostToDevice")) == array.nbytes
    assert cuda.copied("DeviceToHost") == [array.nbytes]
    assert all(copy.pinned for copy in cuda.copies)


def test_uploads_keep_the_order_of_the_axes(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    assert workspace.put(LAYOUTS["Fortran order"], "image").strides == (2, 4, 12)


def test_large_uploads_are_copied_in_pieces(cuda: FakeCuda) -> None:
    array = np.random.default_rng(0).integers(0, 9, (5, 300, 1000), np.int16)
    workspace = CudaWorkspace(0)
    (back,) = workspace.get(workspace.put(array, "image"))
    np.testing.assert_array_equal(back, array)
    assert len(cuda.copied("HostToDevice")) == 4
    assert sum(cuda.copied("HostToDevice")) == array.nbytes
    first = workspace.own(workspace.put(array[1:], "image"))
    second = workspace.put(array + 1, "image")  # waits until the memory in between has been read
    for got, expected in zip(workspace.get(first, second), (array[1:], array + 1), strict=True):
        np.testing.assert_array_equal(got, expected)
    workspace.close()


def test_a_failed_upload_leaves_no_thread_that_copies(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def slowly(to: np.ndarray, source: np.ndarray) -> None:
        time.sleep(0.1 if copied else 0)
        copied.append(len(source))

    workspace = CudaWorkspace(0)
    for end in (workspace.reset, workspace.close):
        copied.clear()
        cuda.fail("cudaMemcpyAsync")
        with monkeypatch.context() as patch:
            patch.setattr(np, "copyto", slowly)
            with pytest.raises(DeviceError):
                workspace.put(np.zeros((8, 1 << 17)), "image")
        end()
        assert copied == [2, 2, 2, 2]


def test_what_is_fetched_later_comes_with_the_next_wait(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    later = workspace.get_later(workspace.put(np.arange(4), "a"))
    (now,) = workspace.get(workspace.put(np.arange(5), "b"))
    waits = cuda.calls["cudaStreamSynchronize"]
    assert later().tolist() == [0, 1, 2, 3]
    assert now.tolist() == [0, 1, 2, 3, 4]
    assert cuda.calls["cudaStreamSynchronize"] == waits
    unfetched = workspace.get_later(workspace.put(np.arange(2), "a"))
    assert unfetched().tolist() == [0, 1]
    workspace.get_later(workspace.put(np.arange(3), "a"))
    workspace.reset()  # after a call that failed
    n_copies = len(cuda.copied("DeviceToHost"))
    workspace.get(now_there := workspace.put(np.arange(5), "b"))
    assert cuda.copied("DeviceToHost")[n_copies:] == [now_there.nbytes]


def test_several_arrays_come_back_after_one_wait(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    first, second = workspace.zeros((3,), np.int64), workspace.put(np.arange(5), "b")
    before = cuda.calls["cudaStreamSynchronize"]
    a, b = workspace.get(first, second)
    assert a.tolist() == [0, 0, 0]
    assert b.tolist() == [0, 1, 2, 3, 4]
    assert cuda.calls["cudaStreamSynchronize"] == before + 1


def test_kept_memory_grows_and_stays(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    large = workspace.kept("scratch", (100,), np.float32).address
    assert workspace.kept("scratch", (30,), np.int16).address == large
    used = cuda.used(0)
    workspace.kept("scratch", (200,), np.float32)
    workspace.wait()
    assert cuda.used(0) == used + 400
    workspace.close()
    workspace.wait()
    assert cuda.used(0) == 0


def test_an_array_frees_its_memory_after_the_workspace(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    array = workspace.own(workspace.put(np.arange(4), "a"))
    view = array[1:]
    workspace.close()
    del workspace, array
    assert view.get().tolist() == [1, 2, 3]
    assert cuda.used(0) == 32
    del view
    assert cuda.used(0) == 0


def test_too_little_memory_is_an_error(cuda: FakeCuda) -> None:
    workspace = CudaWorkspace(0)
    with pytest.raises(DeviceError, match="cudaErrorMemoryAllocation"):
        workspace.empty((1 << 25,), np.uint8)
    assert workspace.free_bytes() == 1 << 24


def test_arrays_of_another_device_are_refused(cuda: FakeCuda) -> None:
    there, here = CudaWorkspace(1), CudaWorkspace(0)
    with pytest.raises(InputError, match=r"an array on cuda:1: expected one on cuda:0"):
        here.put(there.zeros((2,), np.int8), "a")


def test_a_device_that_is_not_there_is_an_error(cuda: FakeCuda) -> None:
    with pytest.raises(DeviceError, match=r"cuda:2: this machine has 2 CUDA device"):
        CudaWorkspace(2)
    with pytest.raises(DeviceError, match=r"device 'cuda': expected 'cpu' or 'cuda:N'"):
        workspaces("cuda")


def test_workspaces_are_lent_again(cuda: FakeCuda) -> None:
    lender = workspaces("cuda:1")
    with lender.lend() as first, lender.lend() as second:
        assert first is not second
    with lender.lend() as again:
        assert again is first
    lender.close()


def test_a_workspace_is_lent_again_after_an_error_of_the_input(cuda: FakeCuda) -> None:
    lender = workspaces("cuda:0")
    with pytest.raises(InputError), lender.lend() as first:
        raise InputError("no brain")
    with lender.lend() as again:
        assert again is first
    lender.close()


def test_a_workspace_whose_device_failed_is_not_lent_again(cuda: FakeCuda) -> None:
    lender = workspaces("cuda:0")
    cuda.fail("cudaStreamSynchronize")
    with pytest.raises(InputError), lender.lend() as first:
        raise InputError("no brain")
    with lender.lend() as second:
        assert second is not first
    lender.close()


def test_what_is_lent_while_closed_is_freed_when_it_returns() -> None:
    freed = []

    class Lent:
        def close(self) -> None:
            freed.append(self)

    lender = Workspaces("cpu", Lent)
    with lender.lend() as lent:
        lender.close()
        assert not freed
    assert freed == [lent]
