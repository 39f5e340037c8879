"""TensorRT on fakes: captures, runs and calls of CUDA that fail leave the engine usable."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fastbts import DeviceError
from tests.engine.backends.on_fakes import LARGE, SMALL, Load, OnDevice, check, installed, noise
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import Status
from tests.fakes.tensorrt import FakeTensorRT

WHOLE_CAPTURE = "cudaStreamBeginCapture"


def test_failed_capture_falls_back_to_a_direct_run(
    cuda: FakeCuda, full: FakeTensorRT, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load(full)
    full.failures = ["captured"] * 9
    for seed in range(6):
        check(engine, SMALL, seed)
    assert full.runs == {"direct": 6, "failed": 3}, "it is tried three times"
    assert cuda.calls[WHOLE_CAPTURE] == cuda.calls["cudaStreamEndCapture"] == 3
    reason = "the capture failed, cudaErrorStreamCaptureInvalidated: ERROR: the fake was told to"
    assert f"runs without a CUDA graph: {reason} fail" in caplog.text


def test_refused_capture_leaves_no_graph(cuda: FakeCuda, full: FakeTensorRT, load: Load) -> None:
    engine = load(full)
    full.failures = ["refused"]
    check(engine, SMALL)
    check(engine, SMALL, 1)
    assert not {"Graph", "GraphExec"} & set(cuda.alive())


@pytest.mark.parametrize("name", ["cudaStreamBeginCapture", "cudaGraphInstantiate"])
def test_graph_that_cannot_be_made_is_done_without(
    cuda: FakeCuda, full: FakeTensorRT, load: Load, name: str
) -> None:
    engine = load(full)
    check(engine, SMALL)
    cuda.fail(name, Status.cudaErrorIllegalState)
    check(engine, SMALL, 1)
    check(engine, SMALL, 2)
    check(engine, SMALL, 3)
    assert full.runs["direct"] == 2
    assert cuda.calls["cudaGraphLaunch"] == 2


def test_exception_in_a_capture_ends_it(
    cuda: FakeCuda, full: FakeTensorRT, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(context: Any, stream: int) -> bool:
        raise KeyboardInterrupt

    engine = load(full)
    check(engine, SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(fake_tensorrt.IExecutionContext, "execute_async_v3", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.infer(noise(SMALL))
    assert cuda.calls[WHOLE_CAPTURE] == cuda.calls["cudaStreamEndCapture"] == 1
    check(engine, SMALL)


def test_failing_run_leaves_the_engine_usable(trt: FakeTensorRT, load: Load) -> None:
    engine = load(trt)
    check(engine, SMALL)
    n_loaded = trt.n_loaded
    trt.failures = ["direct"]
    message = r"TensorRT could not run the network: ERROR: the fake was told to fail"
    with pytest.raises(DeviceError, match=message):
        engine.infer(noise(LARGE))
    assert not trt.contexts, "the slot of the failed call is closed"
    for _ in range(3):
        check(engine, SMALL)
        check(engine, LARGE)
    assert trt.n_loaded == n_loaded, "the plan is not loaded again"


def test_failing_run_leaves_other_calls_alone(trt: FakeTensorRT, load: Load) -> None:
    engine = load(trt)
    case = OnDevice(SMALL)
    case.infer(engine)  # enqueued, not done
    trt.failures = ["direct"]
    with pytest.raises(DeviceError, match="told to fail"):
        engine.infer(noise(LARGE))
    case.check()


@pytest.mark.parametrize("name", ["cudaMalloc", "cudaStreamCreateWithFlags", "cudaMemcpyAsync"])
def test_failing_call_of_cuda_leaves_the_engine_usable(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load, name: str
) -> None:
    engine = load(trt)
    cuda.fail(name)
    with pytest.raises(DeviceError, match=f"{name}: cudaErrorMemoryAllocation"):
        engine.infer(noise(SMALL))
    check(engine, SMALL)


def test_failing_run_is_waited_for_before_its_memory_is_freed(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine, case = load(trt), OnDevice(SMALL)
    trt.failures = ["late"]  # after it has enqueued its work
    with pytest.raises(DeviceError, match="told to fail"):
        case.infer(engine)
    case.check()
    assert cuda.calls["cudaEventSynchronize"] == 1


def test_lost_device_is_named(cuda: FakeCuda, full: FakeTensorRT, load: Load) -> None:
    engine = load(full)
    cuda.fail("cudaStreamSynchronize", Status.cudaErrorIllegalAddress)
    message = "cudaErrorIllegalAddress; this process has lost the device: start it again"
    with pytest.raises(DeviceError, match=message):
        engine.infer(noise(SMALL))


def test_no_context_is_an_error_with_its_reason(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(trt)
    monkeypatch.setattr("tests.fakes.tensorrt.IExecutionContext", fail_to_make)
    with pytest.raises(DeviceError, match="no execution context: ERROR: no memory for a context"):
        engine.infer(noise(SMALL))


def fail_to_make(*arguments: Any) -> None:
    from tests.fakes.cuda_machine import CudaError

    raise CudaError(Status.cudaErrorMemoryAllocation)


def test_refused_shape_is_an_error_with_its_reason(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    sides = [(1, 4, n, n, n) for n in (8, 16, 32)]
    engine = load(installed(cuda, monkeypatch, profile=tuple(sides)))
    message = r"volume of shape \(1, 4, 16, 16, 40\): refused by the plan: ERROR: .* not in the"
    with pytest.raises(DeviceError, match=message):
        engine.infer(noise((1, 4, 16, 16, 40)))
    check(engine, SMALL)


def test_log_goes_to_logging_and_is_not_kept(
    trt: FakeTensorRT, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load(trt)
    trt.failures = ["direct"] * 3
    for _ in range(3):
        with pytest.raises(DeviceError):
            engine.infer(noise(SMALL))
    records = [record for record in caplog.records if "told to fail" in record.getMessage()]
    assert [(each.name, each.levelno) for each in records] == [("fastbts", logging.ERROR)] * 3
    assert trt.log.collectors == {}


def test_each_engine_knows_the_reason_of_its_error(trt: FakeTensorRT, load: Load) -> None:
    load(trt)  # TensorRT has one logger in a process, the first
    engine = load(trt)
    trt.failures = ["direct"]
    with pytest.raises(DeviceError, match="told to fail"):
        engine.infer(noise(SMALL))
