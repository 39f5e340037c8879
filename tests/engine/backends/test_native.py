"""The native engine's reading of the shipped network, and its layers on the CPU.

The layers run on an emulated device in tests/training/test_native_engine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper

from fastbts import DeviceError, EngineFileError, load_engine
from fastbts.device.host import Host
from fastbts.engine.backends.native import NativeEngine
from fastbts.engine.backends.native_network import NativeNetwork
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.load import default_engine_path, read_engine
from fastbts.engine.onnx_graph import attributes, read_graph
from fastbts.engine.onnx_parts import read_node


@cache
def shipped() -> bytes:
    return bytes(read_engine(None).payloads["model.onnx"])


def maker(model: onnx.ModelProto, tensor: str) -> NodeProto:
    return next(node for node in model.graph.node if tensor in node.output)


def test_the_shipped_network_gives_the_logits_of_openvino() -> None:
    """With a missing modality and background, which the fusion treats apart."""
    x = np.random.default_rng(0).standard_normal((2, 4, 32, 32, 32), np.float32)
    x[:, :, :5] = 0
    x[1, 1] = 0
    with closing(load_engine(backend="openvino", precision="fp32")) as engine:
        exact, text = engine.infer(x), engine.text
    logits = np.full_like(exact, np.nan)
    NativeNetwork(read_plan(read_graph(shipped()), "shipped"), Host(), 2).run(x, text, logits)
    assert np.abs(logits - exact).max() <= 1e-5 * np.abs(exact).max()


def test_other_text_gives_other_logits() -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 32), np.float32)
    with closing(load_engine(backend="openvino", precision="fp32")) as engine:
        assert engine.text is not None
        text = np.ascontiguousarray(engine.text[::-1])
        exact, default = engine.infer(x, text), engine.infer(x)
        first = engine.text
    network = NativeNetwork(read_plan(read_graph(shipped()), "shipped"), Host(), 2)
    for table, wanted in ((first, default), (text, exact), (first, default)):
        network.run(x, table, logits := np.empty_like(exact))
        assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(exact).max()
    assert np.abs(exact - default).max() > 1e-3 * np.abs(exact).max()


def change_number(tensor: str, name: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = maker(model, tensor)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def change_kind(tensor: str, kind: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        maker(model, tensor).op_type = kind

    return change


def change_input(tensor: str, i: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        maker(model, tensor).input[i] = name

    return change


def change_constant(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        value = np.asarray(numpy_helper.to_array(tensor) * np.float32(factor), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    return change


CHANGES = {
    "slope": change_number("leaky_relu", "alpha", 0.02),
    "epsilon": change_number("batch_norm", "epsilon", 1e-3),
    "stride": change_number("conv3d", "strides", [1, 1, 2]),
    "padding": change_number("conv3d", "pads", [0] * 6),
    "dilation": change_number("conv3d", "dilations", [2] * 3),
    "groups": change_number("conv3d", "group", 4),
    "upsampling": change_number("convolution", "strides", [1] * 3),
    "unpacking": change_number("permute_1", "perm", list(range(8))),
    "packing": change_number("permute", "perm", list(range(8))),
    "transposition": change_number("linear_2", "transB", 0),
    "activation": change_kind("leaky_relu_3", "Relu"),
    "norm": change_kind("batch_norm_4", "LpNormalization"),
    "softmax": change_kind("softmax", "Sigmoid"),
    "pooling": change_kind("mean", "ReduceMax"),
    "order of a concatenation": change_input("cat_1", 0, "semantic_bridge"),
    "skip": change_input("cat_1", 1, "leaky_relu_5"),
    "gate's encoder": change_input("semantic_attention_1", 1, "leaky_relu_2"),
    "gate's decoder": change_input("semantic_attention_1", 2, "leaky_relu_10"),
    "film": change_input("add_652", 1, "split_1_split_1"),
    "bridge": change_input("conv3d_6", 0, "conv3d_5"),
    "similarity": change_input("conv3d_7", 0, "leaky_relu_5"),
    "text": change_input("mul_111", 0, "val_33"),
    "weight": change_input("conv3d", 1, "no such weight"),
    "table of the head": change_input("cat_4", 1, "expand_4"),
    "axis of a concatenation": change_number("cat_1", "axis", 2),
    "axis of a softmax": change_number("softmax", "axis", 1),
    "approximation": change_number("gelu", "approximate", "tanh"),
    "slope of FiLM": change_number("leaky_relu_8", "alpha", 0.02),
    "slope of the head": change_number("leaky_relu_15", "alpha", 0.02),
    "one of FiLM": change_constant("scalar_tensor_default_3", 2),
    "two of the fusion": change_constant("scalar_tensor_default_2", 2),
    "root of the width": change_constant("val_160", 2),
    "least length": change_constant("val_106", 1e9),
    "lengths": change_input("clamp_min", 0, "linalg_vector_norm_1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_whose_nodes_differ_is_refused(name: str) -> None:
    model = onnx.load_from_string(shipped())
    CHANGES[name](model)
    with pytest.raises(EngineFileError, match=r"other\.fbts: the native engine expected"):
        read_plan(read_graph(model.SerializeToString()), "other.fbts")


def test_attributes_are_those_that_onnx_reads() -> None:
    for node in onnx.load_from_string(shipped()).graph.node:
        found = attributes(read_node(node.SerializeToString()))
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            value = value.decode() if isinstance(value, bytes) else value
            if isinstance(value, int | float | str | list):
                assert found[attribute.name] == value


def test_it_needs_a_cuda_device() -> None:
    with pytest.raises(DeviceError, match="device 'cpu': backend 'native' runs on cuda"):
        load_engine(default_engine_path(), backend="native", device="cpu")
    with pytest.raises(DeviceError, match=r"no CUDA device"):
        load_engine(default_engine_path(), backend="native")
    with pytest.raises(DeviceError, match=r"no CUDA device"):
        NativeEngine.capabilities()
