"""An ONNX rewritten for float16 and bfloat16: roundings by hand, types by `onnx`, results."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, inliner, numpy_helper

from fastbts import EngineFileError
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.engine.onnx_bytes import read_metadata
from fastbts.engine.onnx_half import HALVES, IN_FLOAT32, emulate_half, to_half
from fastbts.engine.onnx_int8 import to_int8

TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}
KIND = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def shipped() -> bytes:
    return bytes(read_engine_file(default_engine_path()).payloads["model.onnx"])


def network(*nodes: onnx.NodeProto, **tensors: object) -> bytes:
    """volume (N,) -> logits (N,), both float32, through nodes that use the tensors."""
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("volume", "logits")
    ]
    stored = [numpy_helper.from_array(np.asarray(t), name) for name, t in tensors.items()]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"precision": "fp32", "name": "small"})
    return model.SerializeToString()


def run(content: bytes, volume: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"volume": volume})[0]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_numbers_are_rounded_as_by_pytorch(precision: str) -> None:
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    # Halfway between two numbers of the type: ties go to even.
    ties = {"fp16": [1 + 2**-11, 1 + 3 * 2**-11], "bf16": [1 + 2**-8, 1 + 3 * 2**-8]}[precision]
    x = np.concatenate([x, np.float32(ties), np.float32([0, -0.0, 1e-30])])
    rounded = HALVES[precision].rounded(x, "x")
    expected = torch.from_numpy(x).to(TORCH[precision]).float().numpy()
    np.testing.assert_array_equal(rounded[:-1], expected[:-1])
    assert rounded[-1] > 0, "a divisor's lower bound stays above 0"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_largest_number_is_kept_and_larger_ones_are_refused(precision: str) -> None:
    largest = float(torch.finfo(TORCH[precision]).max)
    half = HALVES[precision]
    assert half.rounded(np.float32([-largest]), "x") == -largest
    beyond = np.nextafter(np.float32(largest), np.float32(np.inf))
    for wrong in (beyond, np.nan, np.inf):
        with pytest.raises(
            EngineFileError, match=r"ONNX tensor 'w': expected numbers up to .* use precision bf16"
        ):
            half.bits(np.float32([1, wrong]), "w")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_onnx_accepts_the_shipped_network(shipped: bytes, precision: str) -> None:
    content = to_half(shipped, precision)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {
        end.type.tensor_type.elem_type for end in (*model.graph.input, *model.graph.output)
    } == {TensorProto.FLOAT}
    floats = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert floats == ["text"], "the default of an input has the type that callers give"
    inferred = onnx.shape_inference.infer_shapes(inliner.inline_local_functions(model))
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert kinds["conv3d_15"] == KIND[precision]
    in_float32 = {
        n.op_type for n in model.graph.node if kinds.get(n.output[0]) == TensorProto.FLOAT
    }
    lacking = {"ConvTranspose"} if precision == "bf16" else set()
    present = {n.op_type for n in model.graph.node}
    assert in_float32 == (present & {*IN_FLOAT32, "Cast"}) | lacking
    assert read_metadata(content)["precision"] == precision


def test_the_emulation_is_a_float32_network(shipped: bytes) -> None:
    content = emulate_half(shipped, "bf16")
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert read_metadata(content)["precision"] == "fp32"
    # Each rounding is a Cast there and back; weights were rounded before.
    casts = [n for n in model.graph.node if n.op_type == "Cast"]
    there = {n.output[0] for n in casts if n.attribute[0].i == TensorProto.BFLOAT16}
    back = {n.input[0] for n in casts if n.attribute[0].i == TensorProto.FLOAT}
    assert there
    assert there <= back


def test_emulation_and_float16_agree() -> None:
    nodes = [
        helper.make_node("Mul", ["volume", "w"], ["scaled"]),
        helper.make_node("Constant", [], ["c"], value_float=0.1),
        helper.make_node("Add", ["scaled", "c"], ["sum"]),
        helper.make_node("Shape", ["sum"], ["size"]),
        helper.make_node("Cast", ["size"], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sum", "n"], ["logits"]),
    ]
    content = network(*nodes, w=np.float32(0.3))
    x = np.linspace(-5, 5, 1001, dtype=np.float32)
    one, other = (run(make(content, "fp16"), x) for make in (to_half, emulate_half))
    h = np.float16
    by_hand = ((x.astype(h) * h(0.3)).astype(h) + h(0.1)).astype(h) / h(1001)
    np.testing.assert_array_equal(other, by_hand.astype(np.float32))
    # ONNX Runtime leaves out some of the roundings on CPUs that do not compute in float16.
    assert np.abs(one - other).max() <= 2**-9 * np.abs(one).max()
    assert np.abs(other - run(content, x)).max() > 0


def test_sums_stay_in_float32() -> None:
    """300 squares of 100 are more than float16 holds."""
    nodes = [
        helper.make_node("ReduceL2", ["volume", "axis"], ["norm"], keepdims=1),
        helper.make_node("Div", ["volume", "norm"], ["logits"]),
    ]
    content = network(*nodes, axis=np.int64([0]))
    x = np.full(300, 100, np.float32)
    for make in (to_half, emulate_half):
        np.testing.assert_allclose(run(make(content, "fp16"), x), 1 / np.sqrt(300), rtol=1e-3)


def test_tensors_in_float_data_and_in_constants_are_rounded() -> None:
    third = helper.make_tensor("", TensorProto.FLOAT, [2], [1 / 3, 2 / 3])  # not in raw_data
    nodes = [
        helper.make_node("Constant", [], ["c"], value=third),
        helper.make_node("Add", ["volume", "c"], ["logits"]),
    ]
    model = onnx.load_from_string(to_half(network(*nodes), "fp16"))
    (constant,) = (n for n in model.graph.node if n.op_type == "Constant")
    np.testing.assert_array_equal(
        numpy_helper.to_array(constant.attribute[0].t), np.float16([1 / 3, 2 / 3])
    )


def test_a_weight_too_large_is_named() -> None:
    content = network(helper.make_node("Mul", ["volume", "w"], ["logits"]), w=np.float32(1e5))
    with pytest.raises(EngineFileError, match=r"tensor 'w': .* up to 65504.* got 100000"):
        to_half(content, "fp16")
    assert run(emulate_half(content, "bf16"), np.ones(1, np.float32)) == pytest.approx(1e5, 0.01)


def test_nodes_without_ends_are_refused_or_left() -> None:
    with pytest.raises(EngineFileError, match="node 'ReduceMean' has no outputs"):
        to_half(network(helper.make_node("ReduceMean", ["volume"], [])), "fp16")
    nodes = [helper.make_node("Conv", [], ["x"]), helper.make_node("Softmax", [], ["logits"])]
    assert onnx.load_from_string(to_half(network(*nodes), "fp16")).graph.node[1].op_type == "Conv"
    with pytest.raises(EngineFileError, match="no range for any convolution"):
        to_int8(network(*nodes), {"x": 1.0})


def test_damaged_tensors_are_refused() -> None:
    model = onnx.load_from_string(
        network(helper.make_node("Mul", ["volume", "w"], ["logits"]), w=np.ones(4, np.float32))
    )
    model.graph.initializer[0].raw_data = b"123"
    with pytest.raises(EngineFileError, match="tensor 'w': expected 4 bytes for each element"):
        to_half(model.SerializeToString(), "fp16")
    with pytest.raises(EngineFileError, match="damaged or truncated"):
        to_half(model.SerializeToString()[:40], "fp16")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_more_digits_less_error(shipped: bytes, precision: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 48)).astype(np.float32)
    exact, rounded = run(shipped, x), run(emulate_half(shipped, precision), x)
    allowed = {"fp16": 0.002, "bf16": 0.02}[precision] * np.abs(exact).max()
    assert allowed / 20 <= np.abs(rounded - exact).max() <= allowed


def test_nodes_stay_in_order(shipped: bytes) -> None:
    """Each input is made before it is used, also where one node became three."""
    graph = onnx.load_from_string(to_half(shipped, "bf16")).graph
    known = {i.name for i in (*graph.input, *graph.initializer)}
    for node in graph.node:
        assert known.issuperset(filter(None, node.input)), node.name
        assert known.isdisjoint(node.output)
        known |= set(node.output)
