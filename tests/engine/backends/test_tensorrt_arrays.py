"""TensorRT on fakes: devices, arrays of a device and of the host, streams, copies."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, load_engine
from fastbts.device.arrays import DeviceArray
from tests.engine.backends.on_fakes import LARGE, SMALL, Load, OnDevice, check, installed, noise
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import FakeTensorRT, activation_bytes, voxel_network, write_fake_plan

WHOLE_CAPTURE = "cudaStreamBeginCapture"


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
    check(engine, (6, 4, 16, 16, 16))
    assert trt.runs == {"direct": 2}, "4 and 2"
    case = OnDevice((6, 4, 16, 16, 16))
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
        (tensor, logits[:1], r"out: expected a float32 array of shape \(2, 3, 16, 48, 24\)"),
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
    engine, case = load_engine(device="cpu"), OnDevice((1, 4, 32, 32, 32))
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
