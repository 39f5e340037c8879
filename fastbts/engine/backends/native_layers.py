"""Follows the nodes of an ONNX backwards and reads single layers, for the native engine.

Whatever is not as expected is an `EngineFileError` that names the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastbts.engine.backends.native_plan import Floats, Linear, Unit
from fastbts.engine.onnx_graph import OnnxGraph, attributes
from fastbts.engine.onnx_parts import Node
from fastbts.errors import EngineFileError

EPSILON, SLOPE = 1e-5, 0.01
NORMS = "InstanceNormalization", "BatchNormalization"


@dataclass
class LayerReader:
    """Reads layers of a graph.

    Attributes:
        graph: The graph.
        path: Its file, for messages.
        seen: What was read before: tensors and layers by name.
    """

    graph: OnnxGraph
    path: str
    seen: dict[str, Any] = field(default_factory=dict)

    def maker(self, tensor: str, *kinds: str) -> Node:
        """The node that makes a tensor, which must be of one of these kinds."""
        node = self.graph.makers.get(tensor)
        if node is None or kind_of(node) not in kinds:
            got = "an input or constant" if node is None else f"a node {kind_of(node)}"
            raise EngineFileError(
                f"{self.path}: the native engine expected {' or '.join(kinds)} before "
                f"{tensor!r}, got {got}; use another backend, or export the network again"
            )
        return node

    def follow(self, tensor: str, *kinds: str) -> Node:
        """The last of a chain of nodes, each the first input of the one before."""
        node = self.maker(tensor, kinds[0])
        for kind in kinds[1:]:
            node = self.maker(node.inputs[0], kind)
        return node

    def weight(self, node: Node, i: int) -> Floats:
        """Input i of a node: a copy of a weight, maybe stored as float16."""
        name = node.inputs[i] if i < len(node.inputs) else ""
        cast = self.graph.makers.get(name)
        found = self.graph.weights.get(cast.inputs[0] if cast and cast.op == "Cast" else name)
        if found is None:
            raise EngineFileError(
                f"{self.path}: the native engine expected a weight as input {i} of the node that "
                f"makes {node.outputs[0]!r}, got {name!r}; use another backend, or export the "
                "network again"
            )
        return found.astype(np.float32)

    def number(self, node: Node, i: int) -> float:
        """Input i of a node: a constant of one element."""
        value = self.weight(node, i)
        return float(value.reshape(-1)[0]) if value.size == 1 else np.nan

    def require(self, ok: bool, node: Node, expected: str) -> None:
        """Refuses a node unless ok."""
        if not ok:
            raise EngineFileError(
                f"{self.path}: the native engine expected {expected} at the node that makes "
                f"{node.outputs[0]!r}; use another backend, or export the network again"
            )

    def same(self, key: str, tensor: str) -> None:
        """Notes a tensor that several nodes must read."""
        other = self.seen.setdefault(key, tensor)
        self.require(other == tensor, self.graph.makers[tensor], f"the same {key} everywhere")

    def noted(self, key: str, what: str) -> str:
        """A tensor that was noted before."""
        if key not in self.seen:
            raise EngineFileError(
                f"{self.path}: the native engine expected {what} in a network that reads text; "
                "use another backend"
            )
        return str(self.seen[key])

    def linear(self, tensor: str) -> tuple[str, Linear]:
        """Input and weights of a linear layer, in either of the exporter's forms."""
        node = self.maker(tensor, "Gemm", "Add")
        if node.op == "Gemm":
            self.require(
                fits(node, transA=0, transB=1) and number(node, "alpha", 1.0) == 1.0,
                node,
                "Gemm with transB = 1",
            )
            weight = self.weight(node, 1)
            has_bias = len(node.inputs) > 2 and node.inputs[2]  # the exporter drops zeros
            bias = self.weight(node, 2) if has_bias else np.zeros(len(weight), np.float32)
            return node.inputs[0], Linear(weight, bias)
        product = self.maker(node.inputs[0], "MatMul")
        transposed = np.ascontiguousarray(self.weight(product, 1).T)
        return product.inputs[0], Linear(transposed, self.weight(node, 1))

    def unit(self, tensor: str) -> tuple[str, Unit]:
        """Input and weights of a convolution with its norm, FiLM and activation."""
        act = self.maker(tensor, "LeakyRelu")
        self.require(abs(number(act, "alpha") - SLOPE) < 1e-6, act, "the slope 0.01")
        norm = self.maker(act.inputs[0], *NORMS, "Add")
        film = None
        if norm.op == "Add":
            norm, film = self.film(norm)
        conv = self.maker(norm.inputs[0], "Conv")
        weight, stride = self.weight(conv, 1), 2 if fits(conv, strides=[2] * 3) else 1
        self.require(
            weight.shape[2:] == (3, 3, 3)
            and len(conv.inputs) == 2
            and fits(conv, pads=[1] * 6, strides=[stride] * 3, dilations=[1] * 3, group=1),
            conv,
            "a convolution 3^3 without bias, stride 1 or 2",
        )
        is_fixed = norm.op == "BatchNormalization"
        return conv.inputs[0], Unit(weight, stride, *self.norm(norm), film, is_fixed)

    def norm(self, node: Node) -> tuple[Floats, Floats]:
        """Weight and bias; those of a batch norm include its mean and variance."""
        epsilon = number(node, "epsilon", EPSILON)
        self.require(abs(epsilon - EPSILON) < 1e-9, node, "epsilon 1e-5")
        weight, bias = self.weight(node, 1), self.weight(node, 2)
        if node.op == "InstanceNormalization":
            return weight, bias
        self.require(number(node, "training_mode", 0) == 0, node, "a batch norm in eval mode")
        mean, variance = self.weight(node, 3), self.weight(node, 4)
        scale = (weight / np.sqrt(variance.astype(np.float64) + EPSILON)).astype(np.float32)
        return scale, bias - mean * scale

    def pointwise(self, tensor: str) -> tuple[str, Linear]:
        """A convolution 1^3 with bias."""
        conv = self.maker(tensor, "Conv")
        weight = self.weight(conv, 1)
        self.require(
            weight.shape[2:] == (1, 1, 1) and fits(conv, strides=[1] * 3, pads=[0] * 6, group=1),
            conv,
            "a convolution 1^3",
        )
        return conv.inputs[0], Linear(weight[:, :, 0, 0, 0], self.weight(conv, 2))

    def units(self, tensor: str) -> tuple[str, tuple[Unit, Unit]]:
        """Input and units of a block."""
        between, second = self.unit(tensor)
        first_input, first = self.unit(between)
        self.require(
            first.film is None and second.stride == 1,
            self.graph.makers[between],
            "no FiLM after a block's first convolution, and no stride in its second",
        )
        return first_input, (first, second)

    def film(self, add: Node) -> tuple[Node, Linear]:
        """norm (1 + gamma) + beta."""
        product = self.maker(add.inputs[0], "Mul")
        plus_one = self.maker(product.inputs[1], "Add")
        split = self.maker(plus_one.inputs[0], "Split")
        self.require(
            (plus_one.inputs[0], add.inputs[1]) == split.outputs
            and fits(split, axis=1, num_outputs=2)
            and self.number(plus_one, 1) == 1,
            add,
            "FiLM from one Split",
        )
        level = self.follow(split.inputs[0], "Unsqueeze", "Unsqueeze")
        hidden, rows = self.linear(level.inputs[0])
        self.same("trunk", hidden)
        return self.maker(product.inputs[0], *NORMS), rows

    def kind(self, tensor: str) -> str:
        """Kind of the node that makes a tensor; "" for an input or constant."""
        node = self.graph.makers.get(tensor)
        return "" if node is None else kind_of(node)

    def normalized(self, tensor: str) -> str:
        """What vectors were before their length was made 1."""
        div = self.maker(tensor, "Div")
        clip = self.follow(div.inputs[1], "Expand", "Clip")
        length = self.maker(clip.inputs[0], "ReduceL2")
        self.require(
            length.inputs[0] == div.inputs[0] and 0 < self.number(clip, 1) <= 1e-11,
            div,
            "vectors of length 1",
        )
        return div.inputs[0]

    def attention(self, tensor: str, width: int) -> tuple[str, str, str]:
        """Keys, queries and values of softmax(q k^T / sqrt(E)) v; `width` is E."""
        product = self.maker(tensor, "MatMul")
        softmax = self.maker(product.inputs[0], "Softmax")
        scaled = self.maker(softmax.inputs[0], "Div")
        scores = self.maker(scaled.inputs[0], "MatMul")
        keys = self.maker(scores.inputs[1], "Transpose")
        self.require(
            fits(softmax, axis=2)
            and fits(keys, perm=[0, 2, 1])
            and abs(self.number(scaled, 1) - width**0.5) < 1e-3,
            softmax,
            "softmax(q k^T / sqrt(E)) v",
        )
        return keys.inputs[0], scores.inputs[0], product.inputs[1]

    def of_voxels(self, tensor: str, features: str) -> Linear:
        """A linear layer of the voxels of some features."""
        voxels, layer = self.linear(tensor)
        node = self.follow(voxels, "Transpose", "Reshape")
        self.require(node.inputs[0] == features, node, "attention to the encoder's last level")
        return layer


def fits(node: Node, **expected: Any) -> bool:
    """Whether a node has these attributes."""
    found = attributes(node)
    return all(found.get(name) == value for name, value in expected.items())


def number(node: Node, name: str, default: float = np.inf) -> float:
    """An attribute that is a number."""
    value = attributes(node).get(name, default)
    return float(value) if isinstance(value, int | float) else np.inf


def kind_of(node: Node) -> str:
    """Operator of a node, with its domain unless that is ONNX's own: "fastbts.CaseConv"."""
    return f"{node.domain}.{node.op}" if node.domain else node.op
