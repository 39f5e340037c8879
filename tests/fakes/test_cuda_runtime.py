"""The fake CUDA runtime: it offers only what the real bindings have, and keeps CUDA's rules."""

from __future__ import annotations

import inspect
import threading
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import CONSTANTS, TYPES, Capture, Kind, Status

UP, DOWN = Kind.cudaMemcpyHostToDevice, Kind.cudaMemcpyDeviceToHost
THREAD_LOCAL = Capture.cudaStreamCaptureModeThreadLocal


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda(n_devices=2)


@pytest.fixture
def api(cuda: FakeCuda) -> ModuleType:
    return cuda.module()


def done(answer: tuple[Any, ...]) -> Any:
    assert answer[0] == Status.cudaSuccess
    return answer[1] if len(answer) > 1 else None


def functions(api: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(api).items()
        if name.startswith("cuda") and inspect.isfunction(value)
    }


def test_all_of_it_is_in_the_real_bindings(api: ModuleType) -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="no CUDA bindings are installed")
    assert len(functions(api)) >= 37
    for name, function in functions(api).items():
        names = list(inspect.signature(getattr(real, name)).parameters)
        assert list(inspect.signature(function).parameters) == names, name
    for kind in TYPES:
        there = getattr(real, kind.__name__)
        if issubclass(kind, IntEnum):
            assert all(getattr(there, each.name) == each for each in kind)
    assert all(getattr(real, name) == value for name, value in CONSTANTS.items())


def test_calls_answer_as_the_bindings_do(cuda: FakeCuda, api: ModuleType) -> None:
    assert api.cudaGetDeviceCount() == (Status.cudaSuccess, 2)
    assert api.cudaSetDevice(1) == (Status.cudaSuccess,)
    assert api.cudaSetDevice(2) == (Status.cudaErrorInvalidDevice,)
    cuda.fail("cudaMalloc", after=1)
    assert api.cudaMalloc(8)[0] == Status.cudaSuccess
    assert api.cudaMalloc(8) == (Status.cudaErrorMemoryAllocation, None)
    assert api.cudaMalloc(8)[0] == Status.cudaSuccess
    assert FakeCuda(0).module().cudaGetDeviceCount() == (Status.cudaErrorNoDevice, None)


def test_each_thread_has_its_own_device(cuda: FakeCuda, api: ModuleType) -> None:
    done(api.cudaSetDevice(1))
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(api.cudaGetDevice()))
    thread.start()
    thread.join()
    assert seen == [(Status.cudaSuccess, 0)]


def test_copies_and_memory_are_counted(cuda: FakeCuda, api: ModuleType) -> None:
    stream, address = done(api.cudaStreamCreate()), done(api.cudaMalloc(400))
    pinned = done(api.cudaMallocHost(400))
    assert address % 256 == 0
    assert (cuda.used(0), cuda.used(1), cuda.used(None)) == (400, 0, 400)
    x, y = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    assert np.isnan(cuda.view(address, (100,), np.float32, 0)).all(), "fresh memory has any value"
    done(api.cudaMemcpyAsync(address, x.ctypes.data, 400, UP, stream))
    done(api.cudaMemcpyAsync(y.ctypes.data, address, 400, DOWN, stream))
    done(api.cudaMemcpyAsync(pinned, address, 40, DOWN, int(stream)))
    np.testing.assert_array_equal(x, y)
    assert cuda.copied("HostToDevice") == [400]
    assert cuda.copied("DeviceToHost") == [400, 40]
    assert [copy.pinned for copy in cuda.copies] == [False, False, True]
    past_the_end = api.cudaMemcpyAsync(address + 8, x.ctypes.data, 400, UP, stream)
    assert past_the_end == (Status.cudaErrorIllegalAddress,)
    assert api.cudaMalloc(8) == (Status.cudaErrorIllegalAddress, None), "the context has ended"
    assert cuda.alive() == {"Stream": 1, "Block": 2}


def test_memory_ends(api: ModuleType) -> None:
    small = FakeCuda(n_bytes=100).module()
    first = done(small.cudaMalloc(60))
    assert small.cudaMalloc(60)[0] == Status.cudaErrorMemoryAllocation
    done(small.cudaFree(first))
    assert small.cudaFree(first)[0] == Status.cudaErrorInvalidValue
    assert done(small.cudaMemGetInfo()) == 100


def test_wrong_device_is_seen(cuda: FakeCuda, api: ModuleType) -> None:
    stream, address = done(api.cudaStreamCreate()), done(api.cudaMalloc(4))
    done(api.cudaSetDevice(1))
    assert api.cudaMemsetAsync(address, 0, 4, stream)[0] == Status.cudaErrorInvalidResourceHandle
    other = done(api.cudaStreamCreate())
    assert api.cudaMemsetAsync(address, 0, 4, other)[0] == Status.cudaErrorInvalidResourceHandle
    assert cuda.wrong_device == [
        "a stream of device 0 on device 1",
        "memory of device 0 on device 1",
    ]


def test_deferred_work_waits_to_be_waited_for() -> None:
    cuda = FakeCuda(deferred=True)
    api = cuda.module()
    first, second = done(api.cudaStreamCreate()), done(api.cudaStreamCreate())
    address, event = done(api.cudaMalloc(4)), done(api.cudaEventCreate())
    value = cuda.view(address, (4,), np.uint8, 0)
    done(api.cudaMemsetAsync(address, 1, 4, first))
    done(api.cudaEventRecord(event, first))
    done(api.cudaMemsetAsync(address, 2, 4, first))
    assert list(value) == [255] * 4
    assert api.cudaEventQuery(event) == (Status.cudaErrorNotReady,)
    done(api.cudaStreamWaitEvent(second, event, 0))
    done(api.cudaEventRecord(event, second))  # a new record, for which `second` does not wait
    done(api.cudaStreamSynchronize(second))
    assert list(value) == [1] * 4, "up to the event, no further"
    done(api.cudaEventQuery(event))
    done(api.cudaDeviceSynchronize())
    assert list(value) == [2] * 4


def test_graph_replays_what_was_captured(cuda: FakeCuda, api: ModuleType) -> None:
    stream, address = done(api.cudaStreamCreate()), done(api.cudaMalloc(4))
    done(api.cudaStreamBeginCapture(stream, THREAD_LOCAL))
    done(api.cudaMemsetAsync(address, 7, 4, stream))
    graph = done(api.cudaStreamEndCapture(stream))
    launched = done(api.cudaGraphInstantiate(graph, 0))
    done(api.cudaGraphDestroy(graph))
    value = cuda.view(address, (4,), np.uint8, 0)
    assert list(value) == [255] * 4, "recorded, not run"
    done(api.cudaGraphLaunch(launched, stream))
    assert list(value) == [7] * 4
    done(api.cudaFree(address))
    assert api.cudaGraphLaunch(launched, stream) == (Status.cudaErrorIllegalAddress,)


@pytest.mark.parametrize("illegal", ["synchronize", "malloc", "query"])
def test_illegal_call_invalidates_a_capture(api: ModuleType, illegal: str) -> None:
    stream = done(api.cudaStreamCreate())
    call = {
        "synchronize": lambda: api.cudaStreamSynchronize(stream),
        "malloc": lambda: api.cudaMalloc(4),
        "query": lambda: api.cudaStreamQuery(stream),
    }[illegal]
    done(api.cudaStreamBeginCapture(stream, THREAD_LOCAL))
    assert done(api.cudaStreamIsCapturing(stream)).name == "cudaStreamCaptureStatusActive"
    assert api.cudaStreamBeginCapture(stream, THREAD_LOCAL)[0] == Status.cudaErrorIllegalState
    assert call()[0] == Status.cudaErrorStreamCaptureUnsupported
    assert done(api.cudaStreamIsCapturing(stream)).name == "cudaStreamCaptureStatusInvalidated"
    assert api.cudaStreamEndCapture(stream) == (Status.cudaErrorStreamCaptureInvalidated, None)
    assert done(api.cudaStreamIsCapturing(stream)).name == "cudaStreamCaptureStatusNone"
    assert api.cudaStreamEndCapture(stream)[0] == Status.cudaErrorIllegalState
    done(api.cudaStreamBeginCapture(stream, THREAD_LOCAL))
    other = threading.Thread(target=lambda: done(api.cudaMalloc(4)))
    other.start()
    other.join()
    done(api.cudaStreamEndCapture(stream))


def test_install_is_what_an_import_finds(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.install(monkeypatch)
    from cuda.bindings import runtime

    assert runtime.cudaGetDeviceCount() == (Status.cudaSuccess, 2)
    assert cuda.calls["cudaGetDeviceCount"] == 1


def test_real_bindings_take_the_same_arguments_and_answer_alike(
    cuda: FakeCuda, api: ModuleType
) -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="no CUDA bindings are installed")
    if real.cudaGetDeviceCount()[0] == Status.cudaSuccess:
        pytest.skip("this machine has a GPU, which the calls would reach")
    given = {
        **dict.fromkeys(("stream", "hStream"), 7),
        **dict.fromkeys(("event", "start", "end"), real.cudaEvent_t(0)),
        **dict.fromkeys(("size", "count", "flags", "value", "device", "devPtr", "ptr"), 0),
        "graph": real.cudaGraph_t(0), "graphExec": real.cudaGraphExec_t(0), "dst": 16, "src": 32,
        "kind": real.cudaMemcpyKind.cudaMemcpyHostToDevice,
        "mode": real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
    }  # fmt: skip
    for name, function in functions(api).items():
        arguments = [given[each] for each in inspect.signature(function).parameters]
        status, *values = getattr(real, name)(*arguments)
        assert status != Status.cudaSuccess
        cuda.fail(name)
        assert list(function(*arguments)[1:]) == values, name
