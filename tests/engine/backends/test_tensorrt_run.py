"""The TensorRT backends on fakes of CUDA and TensorRT: which calls they make, with what, and where.

Emulation: it shows nothing of a GPU's speed, nor that TensorRT computes the network.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, load_engine
from fastbts.device.arrays import DeviceArray
from fastbts.device.cuda import CudaWorkspace
from fastbts.engine.backends.tensorrt import TensorRTEngine
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import Status
from tests.fakes.tensorrt import FakeTensorRT, activation_bytes, voxel_network, write_fake_plan

SMALL, LARGE = (1, 4, 16, 8, 8), (1, 4, 16, 16, 24)
WHOLE_CAPTURE = "cudaStreamBeginCapture"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """Two devices, whose work waits until it is waited for."""
    fake = FakeCuda(n_devices=2, deferred=True)
    fake.install(monkeypatch)
    yield fake
    gc.collect()
    assert not fake.alive(), "nothing is left on the devices"
    assert not fake.wrong_device


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def trt(
    request: pytest.FixtureRequest, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> FakeTensorRT:
    return installed(cuda, monkeypatch, rtx=request.param == "tensorrt-rtx")


@pytest.fixture
def full(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """Not TensorRT-RTX: we capture the graphs."""
    return installed(cuda, monkeypatch)


def installed(cuda: FakeCuda, patch: pytest.MonkeyPatch, **options: Any) -> FakeTensorRT:
    trt = FakeTensorRT(cuda, **options)
    trt.install(patch)
    return trt


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., TensorRTEngine]]:
    """Loads a plan of the fake; closes it in the end."""
    loaded: list[TensorRTEngine] = []

    def load(trt: FakeTensorRT, device: str = "cuda", **record: Any) -> TensorRTEngine:
        path = write_fake_plan(tmp_path / f"{len(loaded)}.fbts", trt, **record)
        engine = load_engine(path, device=device)
        assert isinstance(engine, TensorRTEngine)
        loaded.append(engine)
        return engine

    yield load
    for engine in loaded:
        engine.close()


Load = Callable[..., TensorRTEngine]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def check(engine: TensorRTEngine, shape: tuple[int, ...], seed: int = 0) -> None:
    """Host arrays in, the right logits out."""
    x = noise(shape, seed)
    np.testing.assert_array_equal(engine.infer(x), voxel_network(x, None))


class OnDevice:
    """Tensor and logits on a device, as a prediction has them."""

    def __init__(self, shape: tuple[int, ...], index: int = 0) -> None:
        self.workspace, self.x = CudaWorkspace(index), noise(shape)
        self.tensor = self.workspace.put(self.x, "tensor")
        n, _, *sides = shape
        self.logits = self.workspace.kept("logits", (n, 3, *sides), np.float32)

    def infer(self, engine: TensorRTEngine) -> DeviceArray:
        return engine.infer(self.tensor, out=self.logits, stream=self.workspace.stream)

    def check(self) -> None:
        (logits,) = self.workspace.get(self.logits)
        np.testing.assert_array_equal(logits, voxel_network(self.x, None))


# Graphs.


def test_the_second_run_of_a_shape_is_captured_and_replayed(
    cuda: FakeCuda, full: FakeTensorRT, load: Load
) -> None:
    engine = load(full)
    for seed in range(4):
        check(engine, SMALL, seed)
    assert full.runs == {"direct": 1, "captured": 1}
    assert cuda.calls["cudaGraphLaunch"] == 3


def test_alternating_shapes_replay_their_graphs(
    cuda: FakeCuda, full: FakeTensorRT, load: Load
) -> None:
    engine = load(full)
    check(engine, LARGE)
    for seed in range(4):
        check(engine, SMALL, seed)
        check(engine, LARGE, seed)
    assert full.runs == {"direct": 2, "captured": 2}
    assert cuda.calls["cudaGraphLaunch"] == 7
    assert len(full.contexts) == 2


def test_larger_shape_ends_the_graphs_of_the_smaller_memory(
    cuda: FakeCuda, full: FakeTensorRT, load: Load
) -> None:
    engine = load(full)
    for shape in (SMALL, SMALL, LARGE, SMALL, SMALL):
        check(engine, shape)
    assert full.runs == {"direct": 3, "captured": 2}
    assert cuda.alive()["GraphExec"] == 1


def test_a_slot_keeps_eight_contexts(cuda: FakeCuda, full: FakeTensorRT, load: Load) -> None:
    engine = load(full)
    shapes = [(1, 4, 8, 8, 8 * n) for n in range(12, 0, -1)]
    for shape in shapes * 2:
        check(engine, shape)
    assert len(full.contexts) == 8
    assert full.runs == {"direct": 24}, "each was forgotten before it came again"
    for shape in shapes[-3:] * 2:
        check(engine, shape)
    assert full.runs == {"direct": 24, "captured": 3}


def test_new_addresses_in_every_call_need_one_context(full: FakeTensorRT, load: Load) -> None:
    engine = load(full)
    cases = [OnDevice(SMALL) for _ in range(5)]
    for case in cases:
        case.infer(engine)
        case.check()
    assert full.runs == {"direct": 5}
    assert len(full.contexts) == 1


def test_addresses_that_alternate_get_their_graphs(
    cuda: FakeCuda, full: FakeTensorRT, load: Load
) -> None:
    engine = load(full)
    first, second = OnDevice(SMALL), OnDevice(SMALL)
    for _ in range(6):
        for case in (first, second):
            case.infer(engine)
            case.check()
    assert full.runs["captured"] == 2
    assert len(full.contexts) == 2
    assert cuda.calls["cudaGraphLaunch"] >= 8


def test_rtx_captures_by_itself(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    trt = installed(cuda, monkeypatch, rtx=True)
    trt.capturable = False
    engine = load(trt)
    for seed in range(3):
        check(engine, LARGE, seed)
        check(engine, SMALL, seed)
    assert trt.runs == {"direct": 2, "own graph": 4}
    assert cuda.calls[WHOLE_CAPTURE] == 0


# Faults.


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
    message = r"volume of shape \(1, 4, 8, 8, 40\): refused by the plan: ERROR: .* not in the"
    with pytest.raises(DeviceError, match=message):
        engine.infer(noise((1, 4, 8, 8, 40)))
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
    assert trt.log.collectors == []


def test_each_engine_knows_the_reason_of_its_error(trt: FakeTensorRT, load: Load) -> None:
    load(trt)  # TensorRT has one logger in a process, the first
    engine = load(trt)
    trt.failures = ["direct"]
    with pytest.raises(DeviceError, match="told to fail"):
        engine.infer(noise(SMALL))


# Devices.


def test_each_call_runs_on_the_engines_device(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine = load(trt, device="cuda:1")
    assert engine.device == engine.description["device"] == "cuda:1"
    check(engine, SMALL)
    thread = Thread(target=check, args=(engine, LARGE))
    thread.start()
    thread.join()
    assert cuda.used(0) == 0
    assert cuda.used(1) > activation_bytes(LARGE)
    assert cuda.device == 0, "the caller's device is put back"


def test_two_devices_at_once(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engines = [load(trt, device=f"cuda:{index}") for index in (0, 1)]
    cuda.cudaSetDevice(1)
    for engine in engines * 2:
        check(engine, SMALL)
    assert cuda.device == 1
    assert cuda.used(0) == cuda.used(1) > 0


def test_callers_device_is_put_back_after_an_error(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine = load(trt, device="cuda:1")
    trt.failures = ["direct"]
    with pytest.raises(DeviceError):
        engine.infer(noise(SMALL))
    assert cuda.device == 0


def test_device_that_does_not_exist(trt: FakeTensorRT, load: Load) -> None:
    message = r"cuda:2: this machine has 2 CUDA device\(s\); expected cuda:0 to cuda:1"
    with pytest.raises(DeviceError, match=message):
        load(trt, device="cuda:2")


# Arrays of the device.


def test_call_on_a_stream_returns_without_waiting(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine, case = load(trt), OnDevice(LARGE)
    for _ in range(3):
        before = cuda.calls.copy()
        assert case.infer(engine) is case.logits
        waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
        assert not any((cuda.calls - before)[name] for name in waits)
        logits = cuda.view(case.logits.address, case.logits.shape, np.float32, 0)
        assert not np.array_equal(logits, voxel_network(case.x, None)), "it has not run yet"
        case.check()
        logits[:] = np.nan


def test_arrays_of_the_device_are_not_copied(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, case = load(trt), OnDevice(LARGE)
    case.workspace.wait()
    cuda.copies.clear()
    for _ in range(3):
        case.infer(engine)
    case.workspace.wait()
    assert cuda.copies == []


def test_new_axis_of_a_tensor_is_no_copy(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, case = load(trt), OnDevice(SMALL)
    stream = case.workspace.stream
    engine.infer(case.tensor[0][None], out=case.logits[0][None], stream=stream)
    case.check()


def test_host_arrays_are_staged_once_each_way(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine = load(trt)
    for seed in range(3):
        cuda.copies.clear()
        check(engine, LARGE, seed)
        assert sum(cuda.copied("HostToDevice")) == noise(LARGE).nbytes
        assert cuda.copied("DeviceToHost") == [noise(LARGE).nbytes * 3 // 4]
        assert all(copy.pinned for copy in cuda.copies)


def test_text_is_uploaded_when_it_changes(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt = installed(cuda, monkeypatch, inputs=("volume", "text"))
    monkeypatch.setattr(
        "fastbts.engine.backends.base.baked_text", lambda file: np.ones((3, 8), np.float32)
    )
    engine = load_engine(write_fake_plan(tmp_path / "text.fbts", trt))
    case = OnDevice(SMALL)
    other, again = np.full((3, 8), 2, np.float32), np.ones((3, 8), np.float32)
    cuda.copies.clear()
    for text in (None, None, other, other, again):
        engine.infer(case.tensor, text, out=case.logits, stream=case.workspace.stream)
        (logits,) = case.workspace.get(case.logits)
        np.testing.assert_array_equal(
            logits, voxel_network(case.x, again if text is None else text)
        )
    assert [copy.n_bytes for copy in cuda.copies if not copy.pinned] == [96, 96, 96]
    engine.close()


def test_batches_are_what_the_plan_takes(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    profile = tuple((b, 4, n, n, n) for b, n in ((1, 8), (2, 16), (4, 64)))
    trt = installed(cuda, monkeypatch, profile=profile)
    engine = load(trt, max_batch=4)
    assert engine.batch == 4
    assert load(trt).batch == 1
    check(engine, (6, 4, 8, 8, 8))
    assert trt.runs == {"direct": 2}, "4 and 2"
    case = OnDevice((6, 4, 8, 8, 8))
    case.infer(engine)
    case.check()
    assert trt.runs == {"direct": 4}


def test_arrays_that_cannot_be_used_are_refused(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine, case, elsewhere = load(trt), OnDevice((2, *LARGE[1:])), OnDevice(LARGE, index=1)
    tensor, logits, stream = case.tensor, case.logits, case.workspace.stream
    host = np.empty(logits.shape, np.float32)
    for x, out, message in (
        (elsewhere.tensor, logits, r"tensor: .* on cuda:1: this engine runs on cuda:0; give a Nu"),
        (tensor, None, r"out: expected a float32 array of shape .* on cuda:0, .*; got None"),
        (tensor, host, r"out: expected a float32 array .* on cuda:0, .*; got float32 of shape"),
        (tensor, logits[:1], r"out: expected a float32 array of shape \(2, 3, 16, 16, 24\)"),
        (tensor[:, ::-1], logits, r"tensor: .* with strides .*: expected contiguous float32"),
        (case.x, logits, r"out: .* on cuda:0: expected a writable, contiguous float32"),
    ):
        with pytest.raises(OptionsError, match=message):
            engine.infer(x, out=out, stream=stream)
    shifted = DeviceArray(
        tensor.owner, tensor.address + 4, LARGE, tensor.strides, np.float32, "cuda:0"
    )
    with pytest.raises(OptionsError, match="contiguous float32 at a multiple of 256 bytes"):
        engine.infer(shifted, out=logits[:1], stream=stream)


def test_arrays_of_a_device_are_refused_by_an_engine_of_the_cpu(cuda: FakeCuda) -> None:
    engine, case = load_engine(device="cpu"), OnDevice((1, 4, 16, 16, 16))
    assert engine.device == "cpu"  # type: ignore[attr-defined]
    with pytest.raises(OptionsError, match="on cuda:0: this engine runs on cpu; give a NumPy"):
        engine.infer(case.tensor, out=case.logits)  # type: ignore[arg-type]


def test_stream_that_is_captured_is_refused(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, case = load(trt), OnDevice(SMALL)
    api = cuda.module()
    api.cudaStreamBeginCapture(case.workspace.stream, 1)
    with pytest.raises(DeviceError, match=r"the stream is being captured; .* end the capture"):
        case.infer(engine)
    api.cudaStreamEndCapture(case.workspace.stream)
    case.infer(engine)
    case.check()


# Memory, slots, closing.


def test_activations_take_what_the_shapes_need(
    cuda: FakeCuda, trt: FakeTensorRT, load: Load
) -> None:
    engine = load(trt)
    cases = [OnDevice(shape) for shape in (SMALL, LARGE)]
    before = cuda.used(0)
    for case in cases:
        case.infer(engine)
        case.check()
    assert cuda.used(0) - before == activation_bytes(LARGE)
    assert cuda.peak(0) < activation_bytes((1, 4, 256, 256, 256)) / 100


def test_streams_do_not_wait_for_each_other(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, cases = load(trt), [OnDevice(SMALL) for _ in range(3)]
    for case in cases * 2:  # all in flight at once
        case.infer(engine)
    assert cuda.alive()["Event"] == 3, "a slot for each"
    assert cuda.calls["cudaStreamWaitEvent"] == 0
    for case in cases:
        case.check()
    later = OnDevice(SMALL)
    later.infer(engine)
    later.check()
    assert cuda.alive()["Event"] == 3, "an idle slot serves a new stream"


def test_two_threads(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, barrier, wrong = load(trt), Barrier(2), list[BaseException]()

    def run(n: int) -> None:
        try:
            barrier.wait(10)
            for seed in range(8):
                check(engine, (SMALL, LARGE)[(n + seed) % 2], seed)
        except BaseException as error:
            wrong.append(error)

    threads = [Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cuda.calls["cudaGraphLaunch"] + trt.runs["own graph"] >= 8


def test_closing_frees_all(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine = load(trt)
    for shape in (SMALL, SMALL, LARGE):
        check(engine, shape)
    assert cuda.alive()["Block"] >= 3
    engine.close()
    assert cuda.alive() == {}
    assert not trt.contexts
    with pytest.raises(DeviceError, match="the engine has been closed"):
        engine.infer(noise(SMALL))


def test_closing_waits_for_work_on_streams(cuda: FakeCuda, trt: FakeTensorRT, load: Load) -> None:
    engine, case = load(trt), OnDevice(SMALL)
    case.infer(engine)
    engine.close()
    assert not trt.contexts
    case.check()


def test_closing_during_a_call_frees_after_it(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    trt = installed(
        cuda, monkeypatch, network=lambda x, text: engine.close() or voxel_network(x, text)
    )
    engine = load(trt)
    check(engine, SMALL)
    assert cuda.alive() == {}
    assert not trt.contexts


def test_dropped_engine_frees_all(cuda: FakeCuda, trt: FakeTensorRT, tmp_path: Path) -> None:
    engine = load_engine(write_fake_plan(tmp_path / "x.fbts", trt))
    engine.infer(noise(SMALL))
    case = OnDevice(SMALL)
    engine.infer(case.tensor, out=case.logits, stream=case.workspace.stream)  # type: ignore
    del engine
    gc.collect()
    assert not trt.contexts
    case.check()
