"""Parity of plans where there is no GPU: an emulation on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastbts import DeviceError
from fastbts.build.emulation import emulated_engine, runnable_engine
from fastbts.build.engine import build_engine
from fastbts.engine.backends import BACKENDS
from fastbts.engine.backends.tensorrt_plan import Plan, Wanted, make_record
from fastbts.engine.file import EngineFile, pack_engine, parse_engine_file, read_engine_file
from fastbts.engine.load import default_engine_path, load_engine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_phantom")]
RANGES = {"leaky_relu": 17.0, "leaky_relu_1": 18.5, "leaky_relu_2": 18.2}


def built_for(precision: str, backend: str = "tensorrt-rtx") -> EngineFile:
    """A file with an empty plan."""
    file = read_engine_file(default_engine_path())
    wanted = Wanted(backend, precision, ranges=RANGES)
    record = make_record(SimpleNamespace(__version__="1.7"), wanted, Plan(b"", "", False), None)
    payloads = {**file.payloads, "engine.plan": b"", "engine.json": record}
    build = {"backend": backend, "precision": precision}
    return parse_engine_file(pack_engine(file.spec, payloads, build=build), "plan.fbts")


@pytest.mark.parametrize("precision", BACKENDS["tensorrt-rtx"].precisions)
def test_each_precision_of_a_gpu_is_emulated(precision: str) -> None:
    engine, is_emulated = runnable_engine(built_for(precision))
    assert is_emulated
    assert engine.description["backend"] == "onnxruntime"
    assert engine.text is not None
    engine.close()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_windows_of_a_batch_do_not_mix(precision: str) -> None:
    """So a plan may take several windows per call."""
    engine = emulated_engine(built_for(precision))
    x = np.random.default_rng(0).standard_normal((2, 4, 32, 32, 48)).astype(np.float32)
    both, alone = engine.infer(x), [engine.infer(window[None])[0] for window in x]
    np.testing.assert_allclose(both, alone, atol=1e-3 * np.abs(both).max())
    engine.close()


def test_without_onnx_runtime_the_message_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device() -> None:
        raise DeviceError("no CUDA device here")

    monkeypatch.setattr("fastbts.engine.backends.tensorrt.Runtime", no_device)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DeviceError,
        match=r"no CUDA device here.*; onnxruntime is not installed .*"
        r"pip install 'fastbts\[onnxruntime\]'$",
    ):
        runnable_engine(built_for("fp16"))


def test_onnx_runtime_in_tf32_is_emulated_where_there_is_no_gpu(tmp_path: Path) -> None:
    about = build_engine(
        default_engine_path(), tmp_path / "x.fbts", backend="onnxruntime", precision="tf32"
    )
    assert about["parity"]["emulated"] is True
    assert 0 < about["parity"]["max_logit_difference"] < 0.2


def test_fp16_for_onnx_runtime_keeps_the_source(tmp_path: Path) -> None:
    target = tmp_path / "x.fbts"
    about = build_engine(default_engine_path(), target, backend="onnxruntime", precision="fp16")
    assert about["parity"]["emulated"] is False
    assert 0 < about["parity"]["max_logit_difference"] < 0.1
    source = read_engine_file(default_engine_path()).payloads["model.onnx"]
    assert read_engine_file(target).payloads["model.onnx"] == source
    assert load_engine(target).description["precision"] == "fp16"
    assert load_engine(target, precision="fp32").description["precision"] == "fp32"
