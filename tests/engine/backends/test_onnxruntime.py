"""The ONNX Runtime backend: a build checks that the network loads, and adds nothing to the file."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts import EngineFileError, load_engine
from fastbts.engine.backends.onnxruntime import ONNXRuntimeEngine
from fastbts.engine.file import EngineFile, pack_engine, parse_engine_file, read_engine_file
from fastbts.engine.load import default_engine_path

SHIPPED = read_engine_file(default_engine_path())


def with_network(onnx_bytes: bytes) -> EngineFile:
    return parse_engine_file(pack_engine(SHIPPED.spec, {"model.onnx": onnx_bytes}), "x.fbts")


def test_build_adds_no_payload() -> None:
    assert ONNXRuntimeEngine.build(SHIPPED, "fp32", []) == {}


def test_half_precision_needs_no_build() -> None:
    """The file has the network in float32; it is rewritten when it is loaded."""
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 48), np.float32)
    exact, half = (
        load_engine(backend="onnxruntime", precision=precision) for precision in ("fp32", "fp16")
    )
    assert (exact.description["precision"], half.description["precision"]) == ("fp32", "fp16")
    logits, expected = half.infer(x), exact.infer(x)
    assert 0 < np.abs(logits - expected).max() <= 0.002 * np.abs(expected).max()


def test_build_refuses_a_damaged_network() -> None:
    content = bytes(SHIPPED.payloads["model.onnx"])
    with pytest.raises(EngineFileError, match="damaged or truncated"):
        ONNXRuntimeEngine.build(with_network(content[: len(content) // 2]), "fp32", [])
    with pytest.raises(EngineFileError, match=r"x\.fbts: onnxruntime cannot load the network"):
        ONNXRuntimeEngine.build(with_network(b"\x3a\x00"), "fp32", [])  # an empty graph
