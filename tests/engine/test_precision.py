"""The network of a file in each precision: which ONNX it is, and what it needs."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from fastbts import EngineFileError
from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.engine.onnx_bytes import drop_default, read_default, read_metadata
from fastbts.engine.onnx_half import to_half
from fastbts.engine.precision import emulated, network_in

RANGES = {"leaky_relu": 17.0, "leaky_relu_1": 18.5}


@pytest.fixture(scope="module")
def shipped() -> EngineFile:
    return read_engine_file(default_engine_path())


def test_fp32_and_tf32_are_the_same_onnx(shipped: EngineFile) -> None:
    expected = drop_default(shipped.payloads["model.onnx"], "text")
    assert network_in(shipped, "fp32") == network_in(shipped, "tf32") == expected


def test_the_text_has_a_default_only_where_it_is_emulated(shipped: EngineFile) -> None:
    for precision in ("fp32", "bf16", "int8"):
        assert read_default(network_in(shipped, precision, RANGES), "text") is None
        content = emulated(shipped, precision, RANGES)
        assert read_default(content, "text") is not None
        assert read_metadata(content)["precision"] == "fp32", "it computes in float32"


def test_int8_has_int8_where_a_range_is_known_and_float16_elsewhere(shipped: EngineFile) -> None:
    graph = onnx.load_from_string(network_in(shipped, "int8", RANGES)).graph
    small = [n for n in graph.node if n.op_type == "Conv" and n.input[0].endswith(":int8:float")]
    assert [n.input[0] for n in small] == [f"{name}:int8:float" for name in RANGES]
    kinds = {t.name: t.data_type for t in graph.initializer}
    assert kinds["encoder.0.3.weight:int8"] == onnx.TensorProto.INT8
    assert kinds["encoder.0.3.weight:scale"] == onnx.TensorProto.FLOAT16


def test_a_network_of_another_type_is_refused(shipped: EngineFile) -> None:
    half = to_half(shipped.payloads["model.onnx"], "fp16")
    file = replace(shipped, path="half.fbts", payloads={"model.onnx": memoryview(half)})
    for make in (network_in, emulated):
        with pytest.raises(
            EngineFileError, match=r"half\.fbts: the network computes in fp16; expected fp32"
        ):
            make(file, "fp16")
