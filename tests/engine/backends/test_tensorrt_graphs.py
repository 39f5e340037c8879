"""TensorRT on fakes: contexts by shape and address, and the CUDA graphs of their runs."""

from __future__ import annotations

import pytest

from tests.engine.backends.on_fakes import LARGE, SMALL, Load, OnDevice, check, installed
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import FakeTensorRT

WHOLE_CAPTURE = "cudaStreamBeginCapture"


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
    engine, small, large = load(full), OnDevice(SMALL), OnDevice(LARGE)
    for case in (small, small, large):
        case.infer(engine)
        case.check()
    assert "GraphExec" not in cuda.alive()
    for case in (small, small, large):
        case.infer(engine)
        case.check()
    assert full.runs == {"direct": 3, "captured": 3}
    assert len(full.contexts) == 2


def test_a_slot_keeps_eight_contexts(cuda: FakeCuda, full: FakeTensorRT, load: Load) -> None:
    engine = load(full)
    shapes = [(1, 4, 16, 16, 8 * n) for n in range(13, 1, -1)]
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


def test_new_addresses_leave_the_graphs_of_others(full: FakeTensorRT, load: Load) -> None:
    engine, others = load(full), [OnDevice((1, 4, 16, 16, 8 * n)) for n in range(2, 9)]
    for case in [OnDevice(LARGE), *others, *others]:
        case.infer(engine)
        case.check()
    for case in [OnDevice(LARGE) for _ in range(9)]:
        case.infer(engine)
        case.check()
    full.runs.clear()
    for case in others:
        case.infer(engine)
        case.check()
    assert full.runs == {}, "graphs only"


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


def test_rtx_compiles_once_for_all_contexts(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    trt = installed(cuda, monkeypatch, rtx=True)
    engine, cases = load(trt), [OnDevice(SMALL) for _ in range(3)]
    for case in cases * 2:  # all in flight at once
        case.infer(engine)
    assert len(trt.contexts) == 3
    assert trt.n_compiled == 1
    check(engine, LARGE)
    assert trt.n_compiled == 2
    for case in cases:
        case.check()
