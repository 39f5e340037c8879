"""Bridge, attention and the head's convolution as nodes of the ONNX domain `fastbts`.

Each node has a body of standard ops. A backend runs its own kernel, or the body. The maths is that
of `model/bridge.py`, `model/attention.py` and `CaseConv` of `model/head.py`; the bodies are in
ONNX's text format (docs/Syntax.md of ONNX).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import defs, helper
from onnxscript import values
from torch import Tensor, nn

from training.model import UNet3d
from training.model.attention import SemanticAttention
from training.model.blocks import ConvBlock
from training.model.bridge import SemanticBridge

DOMAIN, VERSION, OPSET = "fastbts", 1, 20
EPSILON = 1e-5
"""Of every InstanceNorm of the network: PyTorch's default."""
INPUTS = {
    "SemanticBridge": ("x", "reduced", "plane_weight", "plane_bias", "view", "expand"),
    "SemanticAttention": (
        "skip",
        "encoded",
        "decoded",
        "similarity",
        "w_x",
        "bias",
        "w_g",
        "w_s",
        "w_a",
        "strength",
    ),
    "CaseConv": ("x", "weight", "bias"),
    "BatchNorm": ("x", "scale", "bias", "mean", "variance"),
}
EXACT_NORM = "InstanceNormalization"
"""The body of a standard op. A backend whose own sums lose digits moves the node into the domain
`fastbts`, and so runs the body."""


def _view(row: int) -> str:
    """Q_d of one view as `q{row}`, with an axis of length 1 along its projection."""
    v = f"v{row}"
    return f"""
  {v}_axis = Constant <value_ints = [{row + 2}]> ()
  {v}_mean = ReduceMean <keepdims = 0> (reduced, {v}_axis)
  {v}_max = ReduceMax <keepdims = 0> (reduced, {v}_axis)
  {v}_plane = Concat <axis = 1> ({v}_mean, {v}_max)
  {v}_conv = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({v}_plane, plane_weight, plane_bias)
  {v}_row = Constant <value_int = {row}> ()
  {v}_offset = Gather <axis = 0> (view, {v}_row)
  {v}_column = Unsqueeze ({v}_offset, column)
  {v}_sum = Add ({v}_conv, {v}_column)
  {v}_seen = LeakyRelu <alpha = 0.01> ({v}_sum)
  {v}_lifted = Conv <kernel_shape = [1, 1]> ({v}_seen, lift)
  q{row} = Unsqueeze ({v}_lifted, {v}_axis)"""


BODIES = {
    "SemanticBridge": f"""
  column = Constant <value_ints = [1, 2]> ()
  kernel = Constant <value_ints = [2, 3]> ()
  lift = Unsqueeze (expand, kernel){_view(0)}{_view(1)}{_view(2)}
  q01 = Add (q0, q1)
  q012 = Add (q01, q2)
  three = Constant <value_float = 3.0> ()
  three_like = CastLike (three, x)
  mean = Div (q012, three_like)
  y = Add (x, mean)""",
    "SemanticAttention": """
  kernel = Constant <value_ints = [2, 3, 4]> ()
  single = Constant <value_ints = [1]> ()
  cubes_x = Unsqueeze (w_x, kernel)
  cubes_g = Unsqueeze (w_g, kernel)
  cubes_s = Unsqueeze (w_s, kernel)
  cubes_a = Unsqueeze (w_a, single)
  hidden_x = Conv <kernel_shape = [1, 1, 1]> (encoded, cubes_x, bias)
  hidden_g = Conv <kernel_shape = [1, 1, 1]> (decoded, cubes_g)
  hidden_xg = Add (hidden_x, hidden_g)
  maps = Shape <start = 0, end = 2> (similarity)
  size = Shape <start = 2> (encoded)
  sizes = Concat <axis = 0> (maps, size)
  up = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
    (similarity, , , sizes)
  hidden_s = Conv <kernel_shape = [1, 1, 1]> (up, cubes_s)
  hidden = Add (hidden_xg, hidden_s)
  open = LeakyRelu <alpha = 0.01> (hidden)
  gate = ConvTranspose <kernel_shape = [2, 2, 2], strides = [2, 2, 2]> (open, cubes_a)
  m = Sigmoid (gate)
  one = Constant <value_float = 1.0> ()
  one_like = CastLike (one, skip)
  twice = Add (m, m)
  signed = Sub (twice, one_like)
  change = Mul (strength, signed)
  factor = Add (one_like, change)
  y = Mul (skip, factor)""",
    "CaseConv": """
  single = Constant <value_ints = [1]> ()
  column = Unsqueeze (bias, single)
  flat = Constant <value_ints = [0, 0, -1]> ()
  voxels = Reshape (x, flat)
  product = MatMul (weight, voxels)
  sum = Add (product, column)
  mixed = Shape <start = 0, end = 2> (weight)
  size = Shape <start = 2> (x)
  sizes = Concat <axis = 0> (mixed, size)
  y = Reshape (sum, sizes)""",
    # Means axis by axis: in float32 sums of some hundred numbers are accurate, sums of half a
    # million lose four digits.
    EXACT_NORM: f"""
  x_axis = Constant <value_ints = [4]> ()
  y_axis = Constant <value_ints = [3]> ()
  z_axis = Constant <value_ints = [2]> ()
  column = Constant <value_ints = [1, 2, 3]> ()
  rows = ReduceMean (x, x_axis)
  planes = ReduceMean (rows, y_axis)
  mean = ReduceMean (planes, z_axis)
  centred = Sub (x, mean)
  squares = Mul (centred, centred)
  square_rows = ReduceMean (squares, x_axis)
  square_planes = ReduceMean (square_rows, y_axis)
  variance = ReduceMean (square_planes, z_axis)
  epsilon = Constant <value_float = {EPSILON}> ()
  epsilon_like = CastLike (epsilon, x)
  above_zero = Add (variance, epsilon_like)
  deviation = Sqrt (above_zero)
  scales = Unsqueeze (scale, column)
  offsets = Unsqueeze (offset, column)
  factor = Div (scales, deviation)
  scaled = Mul (centred, factor)
  y = Add (scaled, offsets)""",
}


def _like_first(first: Tensor, *others: Tensor) -> Tensor:
    return torch.empty_like(first)


def _case_conv_like(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1], *x.shape[2:]))


# The exporter traces only shapes; `translations` maps these ops to nodes.
for _name, _inputs in INPUTS.items():
    torch.library.define(
        f"fastbts::{_name}", f"({', '.join(f'Tensor {i}' for i in _inputs)}) -> Tensor"
    )
    torch.library.register_fake(
        f"fastbts::{_name}", _case_conv_like if _name == "CaseConv" else _like_first
    )


class BridgeNode(nn.Module):
    """A bridge as one node; its 1^3 convolution stays outside."""

    def __init__(self, bridge: SemanticBridge) -> None:
        super().__init__()
        self.reduce, self.plane = bridge.reduce, bridge.plane
        self.view = nn.Parameter(bridge.view.detach().flatten(1))  # (3, R)
        self.expand = nn.Parameter(bridge.expand.weight.detach().flatten(1))  # (C, R)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, None]:
        """As `SemanticBridge.forward` in eval mode, without patch tokens.

        Raises:
            ValueError: Patch tokens are given.
        """
        if tokens is not None:
            raise ValueError(
                "patch tokens given: the node SemanticBridge has no input for them; "
                "export without tokens"
            )
        arguments = self.reduce(x), self.plane.weight, self.plane.bias, self.view, self.expand
        return torch.ops.fastbts.SemanticBridge(x, *arguments), None


class AttentionNode(nn.Module):
    """An attention gate as one node."""

    def __init__(self, gate: SemanticAttention) -> None:
        super().__init__()
        assert gate.map is not None
        assert gate.encoded.bias is not None
        flat = [
            gate.encoded.weight.flatten(1),
            gate.encoded.bias,
            gate.decoded.weight.flatten(1),
            gate.map.weight.flatten(1),
        ]
        self.weights = nn.ParameterList(
            [w.detach() for w in [*flat, gate.gate.weight.flatten(0, 1), gate.strength]]
        )

    def forward(self, skip: Tensor, encoded: Tensor, decoded: Tensor, similarity: Tensor) -> Tensor:
        """As `SemanticAttention.forward`."""
        result: Tensor = torch.ops.fastbts.SemanticAttention(
            skip, encoded, decoded, similarity, *self.weights
        )
        return result


class CaseConvNode(nn.Module):
    """A `CaseConv` as one node."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """As `CaseConv.forward`."""
        result: Tensor = torch.ops.fastbts.CaseConv(x, weight, bias)
        return result


class BatchNormNode(nn.Module):
    """A BatchNorm in eval mode as a node; the exporter would fold it into the convolution before.

    Backends fold it when they load the engine. In the file it is separate, so that training can
    start from the engine.
    """

    def __init__(self, norm: nn.BatchNorm3d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.BatchNorm3d.forward` in eval mode."""
        statistics = self.get_buffer("running_mean"), self.get_buffer("running_var")
        result: Tensor = torch.ops.fastbts.BatchNorm(x, self.weight, self.bias, *statistics)
        return result


def with_nodes(network: UNet3d) -> UNet3d:
    """A copy of the network with the nodes; gates without a similarity map stay modules."""
    network = copy.deepcopy(network)
    if network.bridge is not None:
        network.bridge = BridgeNode(network.bridge)  # type: ignore[assignment]
    if network.text_head is not None:
        network.text_head.classify = CaseConvNode()  # type: ignore[assignment]
    for block in (module for module in network.modules() if isinstance(module, ConvBlock)):
        for i, layer in enumerate(block):
            if isinstance(layer, nn.BatchNorm3d):
                block[i] = BatchNormNode(layer)
    for level, gate in network.gates.items():
        if gate.map is not None:
            network.gates[level] = AttentionNode(gate)  # type: ignore[arg-type]
    return network


def translations() -> dict[Any, Callable[..., Any]]:
    """Op -> node, for the exporter's `custom_translation_table`."""
    return {
        getattr(torch.ops.fastbts, name).default: values.Op(
            values.Opset(DOMAIN, VERSION), name, _schema(name)
        )
        for name in INPUTS
    }


def with_standard_norms(model: onnx.ModelProto) -> None:
    """Makes each node of `BatchNormNode` the standard op, whose default epsilon is PyTorch's."""
    for node in model.graph.node:
        if (node.domain, node.op_type) == (DOMAIN, "BatchNorm"):
            node.domain, node.op_type = "", "BatchNormalization"


def add_bodies(model: onnx.ModelProto) -> None:
    """Appends the bodies of the graph's nodes, and `EXACT_NORM`'s, as model-local functions."""
    used = {
        node.op_type
        for node in model.graph.node
        if node.domain == DOMAIN or node.op_type == EXACT_NORM
    }
    for name in sorted(used):
        inputs = ", ".join(INPUTS.get(name, ("x", "scale", "offset")))
        header = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>'
        text = f"{header}\n{name} ({inputs}) => (y) {{{BODIES[name]}\n}}"
        model.functions.append(onnx.parser.parse_function(text))
    if used and not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _schema(name: str) -> defs.OpSchema:
    parameter = defs.OpSchema.FormalParameter
    return defs.OpSchema(
        name,
        DOMAIN,
        VERSION,
        inputs=[parameter(i, "T") for i in INPUTS[name]],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
    )
