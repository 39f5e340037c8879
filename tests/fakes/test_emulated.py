"""The emulated devices: kernels of the emulated `_C` on the streams of the fake runtime."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import fastbts._C
from fastbts import DeviceError, InputError, ops
from tests.fakes import EmulatedCuda, cupy, emulated_cuda
from tests.fakes.cuda_types import Status

TENSOR = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def test_work_runs_when_something_waits_for_it(cuda: EmulatedCuda) -> None:
    tensor, out = cupy.asarray(TENSOR), cupy.zeros((1, 1, 2, 3, 4), np.float32)
    origins, stream = cupy.zeros((1, 3), np.int32), cupy.Stream(non_blocking=True)
    cupy.Stream.null.synchronize()
    ops.window(tensor, origins, (2, 3, 4), out=out, stream=stream)
    assert not out.get().any()
    assert np.array_equal(out.get(stream=stream)[0], TENSOR)
    assert cuda.launches == ["window_kernel"]


def test_a_graph_replays_kernels(cuda: EmulatedCuda) -> None:
    tensor, out = cupy.asarray(TENSOR), cupy.zeros((1, 1, 2, 3, 4), np.float32)
    origins, stream = cupy.zeros((1, 3), np.int32), cupy.Stream(non_blocking=True)
    cupy.Stream.null.synchronize()
    stream.begin_capture()
    ops.window(tensor, origins, (2, 3, 4), out=out, stream=stream)
    graph = stream.end_capture()
    assert not out.get(stream=stream).any()
    for factor in (1, 2):
        tensor.set(factor * TENSOR, stream=stream)
        graph.launch(stream)
        assert np.array_equal(out.get(stream=stream)[0], factor * TENSOR)


def test_a_launch_that_fails_leaves_the_device_usable(cuda: EmulatedCuda) -> None:
    tensor, out = cupy.asarray(TENSOR), cupy.zeros((1, 1, 2, 3, 4), np.float32)
    origins = cupy.zeros((1, 3), np.int32)
    cuda.fail("window_kernel")
    with pytest.raises(DeviceError, match="window_kernel: cudaError 2"):
        ops.window(tensor, origins, (2, 3, 4), out=out)
    ops.window(tensor, origins, (2, 3, 4), out=out)
    assert np.array_equal(out.get()[0], TENSOR)


def test_two_devices_each_with_its_memory() -> None:
    with emulated_cuda(n_devices=2) as cuda:
        assert ops.n_cuda_devices() == 2
        tensor = cupy.asarray(TENSOR)
        with cupy.Device(1):
            there, out = cupy.asarray(TENSOR), cupy.zeros((1, 1, 2, 3, 4), np.float32)
            origins = cupy.zeros((1, 3), np.int32)
        with pytest.raises(InputError, match="expected an array on cuda:0 as the first one"):
            ops.window(tensor, origins, (2, 3, 4), out=out)
        ops.window(there, origins, (2, 3, 4), out=out)  # also while device 0 is the current one
        assert cuda.device == 0
        with cupy.Device(1):
            assert np.array_equal(out.get()[0], TENSOR)
        assert not cuda.wrong_device


def faulty(cuda: EmulatedCuda) -> int:
    """The status of a wait for a kernel that is not there."""
    cuda.enqueue(0, lambda: cuda._run_kernel("no_kernel", 10**6))
    return int(cuda.module().cudaDeviceSynchronize()[0])


def test_a_fault_of_a_kernel_is_reported() -> None:
    with pytest.raises(AssertionError, match="no_kernel"), emulated_cuda() as cuda:
        assert faulty(cuda) == Status.cudaErrorIllegalAddress


def fail_within(real: ModuleType) -> None:
    with emulated_cuda():
        assert fastbts._C is sys.modules["fastbts._C"] is not real
        assert fastbts._C.HAS_CUDA
        raise KeyError


def test_the_real_module_is_back_afterwards() -> None:
    real = fastbts._C
    with pytest.raises(KeyError):
        fail_within(real)
    assert fastbts._C is sys.modules["fastbts._C"] is ops.image._C is real
