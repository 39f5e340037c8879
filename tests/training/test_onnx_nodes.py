"""The bodies of the ONNX nodes, by hand; and OpenVINO's version of them against the bodies."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fastbts.engine.backends.openvino_nodes import exact_norms, register_nodes
from fastbts.engine.onnx_bytes import call_body
from tests.simt.plugins import run_plugin
from training.model.bridge import SemanticBridge
from training.onnx_nodes import INPUTS, BridgeNode, add_bodies

Arrays = dict[str, np.ndarray]
CONSTANTS = (
    "plane_weight",
    "plane_bias",
    "view",
    "expand",
    "w_x",
    "bias",
    "w_g",
    "w_s",
    "w_a",
    "strength",
)


def bridge() -> Arrays:
    """Channels C = 6, R = 4; volume 4 x 6 x 8."""
    return arrays(
        x=(2, 6, 4, 6, 8),
        reduced=(2, 4, 4, 6, 8),
        plane_weight=(4, 8, 3, 3),
        plane_bias=(4,),
        view=(3, 4),
        expand=(6, 4),
    )


def attention() -> Arrays:
    """Channels C = 6, C' = 5, K = 3, J = 4; similarity at half the resolution of `encoded`."""
    volumes = {
        "skip": (2, 6, 8, 12, 16),
        "encoded": (2, 5, 4, 6, 8),
        "decoded": (2, 5, 4, 6, 8),
        "similarity": (2, 3, 2, 3, 4),
    }
    return arrays(
        **volumes, w_x=(4, 5), bias=(4,), w_g=(4, 5), w_s=(4, 3), w_a=(4, 2, 2, 2), strength=()
    )


def case_conv() -> Arrays:
    """One case, C = 6 channels, J = 5 mixtures; its weights are an input like the volume."""
    return arrays(x=(1, 6, 4, 6, 8), weight=(1, 5, 6), bias=(5,))


def arrays(**shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()
    }


def model(name: str, values: Arrays) -> bytes:
    """An ONNX of one node: volumes are inputs of any size, weights are initializers."""
    inputs = [
        helper.make_tensor_value_info(
            k, TensorProto.FLOAT, v.shape if k == "weight" else [None] * v.ndim
        )
        for k, v in values.items()
        if k not in CONSTANTS
    ]
    weights = [numpy_helper.from_array(v, k) for k, v in values.items() if k in CONSTANTS]
    node = helper.make_node(name, list(INPUTS[name]), ["y"], domain="fastbts")
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 5)]
    graph = helper.make_graph([node], name, inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    add_bodies(made)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def run_body(name: str, values: Arrays) -> np.ndarray:
    session = onnxruntime.InferenceSession(model(name, values))
    return session.run(None, {k: v for k, v in values.items() if k not in CONSTANTS})[0]


def test_bridge_of_no_planes_adds_the_mean_of_three_constants() -> None:
    values = bridge()
    values["plane_weight"][:] = 0
    values["plane_bias"][:] = 1
    values["view"][:] = np.array(
        [[0], [1], [-3]]
    )  # so the three views see 1, 2 and lrelu(-2) = -0.02
    values["expand"][:] = 0.25  # of four equal channels: their value again
    np.testing.assert_allclose(
        run_body("SemanticBridge", values), values["x"] + (1 + 2 - 0.02) / 3, rtol=0, atol=1e-6
    )


def test_bridge_sees_mean_and_maximum_along_each_axis() -> None:
    values = bridge()
    values["plane_weight"][:] = 0
    values["plane_weight"][0, 0, 1, 1] = values["plane_weight"][0, 4, 1, 1] = (
        1  # centre tap: mean + maximum of channel 0
    )
    values["plane_bias"][:], values["view"][:], values["expand"][:] = 0, 0, 0
    values["expand"][2, 0] = 3
    values["reduced"] = np.abs(values["reduced"])
    first = values["reduced"][:, 0]
    views = [first.mean(axis, keepdims=True) + first.max(axis, keepdims=True) for axis in (1, 2, 3)]
    wanted = values["x"].copy()
    wanted[:, 2] += views[0] + views[1] + views[2]
    np.testing.assert_allclose(run_body("SemanticBridge", values), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("logit", "factor"), [(0.0, 1.0), (100.0, 1.5), (-100.0, 0.5)])
def test_attention_with_a_constant_gate(logit: float, factor: float) -> None:
    values = attention()
    for name in ("w_x", "w_g", "w_s"):
        values[name][:] = 0
    values["bias"][:], values["w_a"][:], values["strength"] = 1, logit / 4, np.float32(0.5)
    np.testing.assert_allclose(
        run_body("SemanticAttention", values), factor * values["skip"], rtol=1e-6
    )


def test_case_conv_gives_each_case_its_own_weights() -> None:
    values = arrays(x=(2, 6, 4, 6, 8), weight=(2, 5, 6), bias=(5,))
    wanted = np.einsum("bjc,bcdhw->bjdhw", *(values[k].astype(np.float64) for k in ("weight", "x")))
    wanted += values["bias"][:, None, None, None]
    np.testing.assert_allclose(run_body("CaseConv", values), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [("SemanticBridge", bridge()), ("SemanticAttention", attention()), ("CaseConv", case_conv())],
)
def test_openvino_agrees_with_the_body(name: str, values: Arrays) -> None:
    import openvino

    core = openvino.Core()
    register_nodes(core)
    compiled = core.compile_model(
        core.read_model(model(name, values)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    result = compiled({k: v for k, v in values.items() if k not in CONSTANTS})[0]
    body = run_body(name, values)
    assert np.abs(result - body).max() <= 1e-5 * np.abs(body).max()


def norm_of_many_voxels() -> tuple[np.ndarray, np.ndarray]:
    """Half a million voxels far from zero, and what InstanceNorm makes of them in float64."""
    x = (5 + np.random.default_rng(0).standard_normal((1, 4, 64, 88, 96))).astype(np.float32)
    centred = x - x.mean((2, 3, 4), np.float64, keepdims=True)
    return x, centred / np.sqrt((centred**2).mean((2, 3, 4), keepdims=True) + 1e-5)


def test_the_body_of_instance_norm_is_exact() -> None:
    x, exact = norm_of_many_voxels()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    weights = [
        numpy_helper.from_array(np.full(4, value, np.float32), name)
        for name, value in (("s", 2), ("b", -1))
    ]
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])
    made = helper.make_model(
        helper.make_graph([node], "norm", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    add_bodies(made)
    onnx.checker.check_model(made, full_check=True)
    plain, body = (
        np.abs(onnxruntime.InferenceSession(content).run(None, {"x": x})[0] - (2 * exact - 1)).max()
        for content in (
            made.SerializeToString(),
            call_body(made.SerializeToString(), "InstanceNormalization", "fastbts"),
        )
    )
    assert body <= 1e-5
    assert plain > 2 * body, "or the body serves no purpose"


def test_openvino_norms_are_exact_after_a_convolution() -> None:
    """Where channels come last, as a convolution leaves them, its own MVN is at its worst."""
    import openvino
    from openvino import opset13 as ops

    x, exact = norm_of_many_voxels()

    def error(*, exactly: bool) -> float:
        volume = ops.parameter([1, 4, -1, -1, -1], np.float32)
        same = ops.constant(np.eye(4, dtype=np.float32)[:, :, None, None, None])
        mixed = ops.convolution(volume, same, [1] * 3, [0] * 3, [0] * 3, [1] * 3)
        network = openvino.Model(
            [ops.mvn(mixed, ops.constant(np.array([2, 3, 4])), True, 1e-5, "inside_sqrt")], [volume]
        )
        if exactly:
            exact_norms(network)
        compiled = openvino.Core().compile_model(
            network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return float(np.abs(compiled([x])[0] - exact).max())

    assert error(exactly=True) <= 2e-5
    assert error(exactly=False) > 2 * error(exactly=True), "or `exact_norms` serves no purpose"


@pytest.mark.parametrize(
    ("name", "values"), [("SemanticBridge", bridge()), ("SemanticAttention", attention())]
)
def test_the_tensorrt_plugin_agrees_with_the_body(name: str, values: Arrays) -> None:
    result = run_plugin(name, "float32", [values[i] for i in INPUTS[name]])
    body = run_body(name, values)
    assert np.abs(result - body).max() <= 1e-5 * np.abs(body).max()


def test_bridge_node_refuses_patch_tokens() -> None:
    x = torch.zeros(1, 6, 4, 6, 8)
    with pytest.raises(ValueError, match="no input for them"):
        BridgeNode(SemanticBridge(6, 4, 0))(x, x)
