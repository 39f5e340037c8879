"""TensorRT on fakes: memory, one slot per concurrent call, closing and dropping."""

from __future__ import annotations

import gc
from pathlib import Path
from threading import Barrier, Thread

import pytest

from fastbts import DeviceError, load_engine
from tests.engine.backends.on_fakes import LARGE, SMALL, Load, OnDevice, check, installed, noise
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import FakeTensorRT, activation_bytes, voxel_network, write_fake_plan

WHOLE_CAPTURE = "cudaStreamBeginCapture"


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
