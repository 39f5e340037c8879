"""int8 in an ONNX: scales and weights by hand, where the nodes are, results."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastbts import EngineFileError
from fastbts.engine.onnx_half import to_half
from fastbts.engine.onnx_int8 import to_int8

WEIGHTS = np.float32([[[[[1.27]]], [[[-0.5]]]], [[[[0.002]]], [[[0.001]]]]])  # (2, 2, 1, 1, 1)


def network(weights: np.ndarray = WEIGHTS) -> bytes:
    """volume -> Relu -> Concat with itself' s negative -> Conv, with weights stored as float16."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, "d", "h", "w"])
        for name, n in (("volume", 1), ("logits", 2))
    ]
    nodes = [
        helper.make_node("Cast", ["w_f16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["volume"], ["a"]),
        helper.make_node("Neg", ["volume"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("Conv", ["ab", "w"], ["first"]),
        helper.make_node("Conv", ["ab", "w"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["logits"]),
    ]
    stored = numpy_helper.from_array(weights.astype(np.float16), "w_f16")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [stored])
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def tensors(content: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(content).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


def run(content: bytes, volume: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"volume": volume})[0]


def test_scales_and_weights_by_hand() -> None:
    made = tensors(to_int8(network(), {"a": 2.54, "b": 1.27}))
    assert made["ab:scale"] == np.float32(np.float16(0.02)), "the larger of the two ranges, by 127"
    np.testing.assert_allclose(made["w:scale"], [0.01, 0.002 / 127], rtol=0.005)
    np.testing.assert_array_equal(made["w:int8"].reshape(2, 2), [[127, -50], [127, 64]])
    assert made["w:int8"].dtype == made["w:zero"].dtype == np.int8
    assert not made["w:zero"].any(), "symmetric"
    # Scales are numbers of float16, so that they are the same in a network of that type.
    half = tensors(to_half(to_int8(network(), {"ab": 2.54}), "fp16"))
    for name in ("ab:scale", "w:scale"):
        assert half[name].dtype == np.float16
        np.testing.assert_array_equal(half[name], made[name])


def test_a_tensor_is_quantised_once() -> None:
    model = onnx.load_from_string(to_int8(network(), {"ab": 2.54}))
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == [
        *("Cast", "Relu", "Neg", "Concat"),
        *("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv", "Conv", "Add"),
    ]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {tuple(node.input) for node in convolutions} == {("ab:int8:float", "w:int8:float")}


def test_results_are_near_those_in_float32() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 4, 5, 6)).astype(np.float32)
    exact, small = run(network(), x), run(to_int8(network(), {"a": 1.0, "b": 1.0}), x)
    assert 0 < np.abs(small - exact).max() <= 0.02 * np.abs(exact).max()


def test_weights_of_zero_stay_zero() -> None:
    weights = WEIGHTS.copy()
    weights[1] = 0
    made = tensors(to_int8(network(weights), {"ab": 1.0}))
    assert not made["w:int8"][1].any()
    assert (made["w:scale"] > 0).all()


def test_convolutions_without_a_range_stay() -> None:
    for ranges in ({}, {"a": 1.0}, {"logits": 3.0}):
        with pytest.raises(
            EngineFileError, match=r"no range for any convolution .* calibrate again with"
        ):
            to_int8(network(), ranges)
