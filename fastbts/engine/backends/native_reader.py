"""Reads the native engine's plan from the nodes of an ONNX that `training export` wrote.

The graph is followed from the logits backwards, so that a file whose nodes differ from those of the
network (training/model) is refused, whatever the names of its tensors. Nodes that only compute
shapes are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastbts.engine.backends.native_plan import (
    Bridge,
    Floats,
    Fusion,
    Guidance,
    Level,
    Linear,
    Plan,
    Unit,
)
from fastbts.engine.onnx_graph import OnnxGraph, attributes
from fastbts.engine.onnx_parts import Node
from fastbts.errors import EngineFileError
from fastbts.ops import AttentionWeights, BridgeWeights

UNPACK, PACK = [0, 1, 5, 2, 6, 3, 7, 4], [0, 1, 3, 5, 7, 2, 4, 6]
"""Orders of axes of `unpack_voxels` and `pack_voxels` (training/model/blocks.py)."""
EPSILON, SLOPE = 1e-5, 0.01


def read_plan(graph: OnnxGraph, path: str) -> Plan:
    """The network of a graph.

    Raises:
        EngineFileError: A node differs from those of the network.
    """
    return _Reader(graph, path).read()


@dataclass
class _Reader:
    graph: OnnxGraph
    path: str
    seen: dict[str, Any] = field(default_factory=dict)
    """Parts that several nodes read, with the tensor that they must all read."""

    def read(self) -> Plan:
        logits, patch = self._unpacked()
        mixed = self.maker(logits, "Conv", "fastbts.CaseConv")
        if mixed.op == "Conv":
            head, mlp = Linear(self.weight(mixed, 1)[:, :, 0, 0, 0], self.weight(mixed, 2)), None
        else:
            head, mlp = self._text_head(mixed)
        decoder, bottleneck, skips = self._decoder(mixed.inputs[0])
        top = self._cross_attention(bottleneck)
        encoder, bridge, tensors, packed = self._encoder(top)
        self.require(
            tensors[-2::-1] == skips, self.graph.makers[top], "skips from the encoder's levels"
        )
        encoded = self.seen.pop("encoded", {})
        self.require(
            all(tensors[-1 - i] == name for i, name in encoded.items()),
            self.graph.makers[top],
            "gates that read the encoder's next level",
        )
        guidance = self._guidance(tensors, bridge) if self._reads_text() else None
        fusion = self._fusion(packed, patch)
        return Plan(patch, encoder, decoder, head, fusion, bridge, guidance, mlp)

    def _reads_text(self) -> bool:
        return bool({"table", "first table", "trunk", "maps"} & self.seen.keys())

    # Following the graph.

    def maker(self, tensor: str, *kinds: str) -> Node:
        """The node that makes a tensor, which must be of one of these kinds."""
        node = self.graph.makers.get(tensor)
        if node is None or _kind(node) not in kinds:
            got = "an input or constant" if node is None else f"a node {_kind(node)}"
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
        """Input i of a node: a weight, maybe stored as float16."""
        name = node.inputs[i] if i < len(node.inputs) else ""
        cast = self.graph.makers.get(name)
        found = self.graph.weights.get(cast.inputs[0] if cast and cast.op == "Cast" else name)
        if found is None:
            raise EngineFileError(
                f"{self.path}: the native engine expected a weight as input {i} of the node that "
                f"makes {node.outputs[0]!r}, got {name!r}; use another backend, or export the "
                "network again"
            )
        return found

    def require(self, ok: bool, node: Node, expected: str) -> None:
        if not ok:
            raise EngineFileError(
                f"{self.path}: the native engine expected {expected} at the node that makes "
                f"{node.outputs[0]!r}; use another backend, or export the network again"
            )

    def same(self, key: str, tensor: str) -> None:
        """Notes a tensor that several nodes must read."""
        other = self.seen.setdefault(key, tensor)
        self.require(other == tensor, self.graph.makers[tensor], f"the same {key} everywhere")

    def _noted(self, key: str, what: str) -> str:
        """A tensor that was noted before."""
        if key not in self.seen:
            raise EngineFileError(
                f"{self.path}: the native engine expected {what} in a network that reads text; "
                "use another backend"
            )
        return str(self.seen[key])

    # Layers.

    def linear(self, tensor: str) -> tuple[str, Linear]:
        """Input and weights of a linear layer, in either of the exporter's forms."""
        node = self.maker(tensor, "Gemm", "Add")
        if node.op == "Gemm":
            self.require(
                _fits(node, transA=0, transB=1) and _number(node, "alpha", 1.0) == 1.0,
                node,
                "Gemm with transB = 1",
            )
            return node.inputs[0], Linear(self.weight(node, 1), self.weight(node, 2))
        product = self.maker(node.inputs[0], "MatMul")
        transposed = np.ascontiguousarray(self.weight(product, 1).T)
        return product.inputs[0], Linear(transposed, self.weight(node, 1))

    def unit(self, tensor: str) -> tuple[str, Unit]:
        act = self.maker(tensor, "LeakyRelu")
        self.require(abs(_number(act, "alpha") - SLOPE) < 1e-6, act, "the slope 0.01")
        norm = self.maker(act.inputs[0], "InstanceNormalization", "Add")
        film = None
        if norm.op == "Add":
            norm, film = self._film(norm)
        self.require(abs(_number(norm, "epsilon") - EPSILON) < 1e-9, norm, "epsilon 1e-5")
        conv = self.maker(norm.inputs[0], "Conv")
        weight, stride = self.weight(conv, 1), 2 if _fits(conv, strides=[2] * 3) else 1
        self.require(
            weight.shape[2:] == (3, 3, 3)
            and len(conv.inputs) == 2
            and _fits(conv, pads=[1] * 6, strides=[stride] * 3, dilations=[1] * 3, group=1),
            conv,
            "a convolution 3^3 without bias, stride 1 or 2",
        )
        unit = Unit(weight, stride, self.weight(norm, 1), self.weight(norm, 2), film)
        return conv.inputs[0], unit

    def pointwise(self, tensor: str) -> tuple[str, Linear]:
        """A convolution 1^3 with bias."""
        conv = self.maker(tensor, "Conv")
        weight = self.weight(conv, 1)
        self.require(
            weight.shape[2:] == (1, 1, 1) and _fits(conv, strides=[1] * 3, pads=[0] * 6, group=1),
            conv,
            "a convolution 1^3",
        )
        return conv.inputs[0], Linear(weight[:, :, 0, 0, 0], self.weight(conv, 2))

    def units(self, tensor: str) -> tuple[str, tuple[Unit, Unit]]:
        between, second = self.unit(tensor)
        first_input, first = self.unit(between)
        self.require(
            first.film is None and second.stride == 1,
            self.graph.makers[between],
            "no FiLM after a block's first convolution, and no stride in its second",
        )
        return first_input, (first, second)

    def _film(self, add: Node) -> tuple[Node, Linear]:
        """norm (1 + gamma) + beta."""
        product = self.maker(add.inputs[0], "Mul")
        plus_one = self.maker(product.inputs[1], "Add")
        split = self.maker(plus_one.inputs[0], "Split")
        self.require(
            (plus_one.inputs[0], add.inputs[1]) == split.outputs, add, "FiLM from one Split"
        )
        level = self.follow(split.inputs[0], "Unsqueeze", "Unsqueeze")
        hidden, rows = self.linear(level.inputs[0])
        self.same("trunk", hidden)
        return self.maker(product.inputs[0], "InstanceNormalization"), rows

    # Parts of the network.

    def _unpacked(self) -> tuple[str, int]:
        """The tensor of packed logits, and p."""
        node = self.maker("logits", "Reshape", "Conv", "fastbts.CaseConv")
        if node.op != "Reshape":
            return "logits", 1
        order = self.maker(node.inputs[0], "Transpose")
        self.require(_fits(order, perm=UNPACK), order, "voxels unpacked from channels")
        return self.maker(order.inputs[0], "Reshape").inputs[0], 2

    def _decoder(self, tensor: str) -> tuple[list[Level], str, list[str]]:
        """Levels, coarsest first; the bottleneck's tensor; skips, coarsest first."""
        levels, skips = list[Level](), list[str]()
        while self._is_decoder(tensor):
            joined, units = self.units(tensor)
            concat = self.maker(joined, "Concat")
            up, skip = self.maker(concat.inputs[0], "ConvTranspose"), concat.inputs[1]
            self.require(
                _fits(up, kernel_shape=[2] * 3, strides=[2] * 3, pads=[0] * 6, group=1),
                up,
                "a transposed convolution 2^3, stride 2",
            )
            gate = None
            if self._kind(skip) == "fastbts.SemanticAttention":
                skip, gate = self._gate(skip, up.inputs[0], len(levels))
            levels.append(Level(units, Linear(self.weight(up, 1), self.weight(up, 2)), gate))
            skips.append(skip)
            tensor = up.inputs[0]
        n = len(levels)
        if "encoded" in self.seen:  # by distance from the bottleneck
            found = self.seen["encoded"]
            self.seen["encoded"] = {n - 1 - i: name for i, name in found.items()}
        return levels[::-1], tensor, skips[::-1]

    def _is_decoder(self, tensor: str) -> bool:
        """Whether a block's input is a concatenation."""
        if self._kind(tensor) != "LeakyRelu":
            return False
        joined, _ = self.units(tensor)
        return self._kind(joined) == "Concat"

    def _kind(self, tensor: str) -> str:
        node = self.graph.makers.get(tensor)
        return "" if node is None else _kind(node)

    def _gate(self, tensor: str, decoded: str, i: int) -> tuple[str, AttentionWeights]:
        """Gate of the i-th level from the finest."""
        node = self.graph.makers[tensor]
        self.require(node.inputs[2] == decoded, node, "a gate that reads the decoder")
        self.same("maps", node.inputs[3])
        self.seen.setdefault("encoded", {})[i] = node.inputs[1]
        w_x, bias, w_g, w_s, w_a, strength = (self.weight(node, i) for i in range(4, 10))
        return node.inputs[0], AttentionWeights(w_x, bias, w_g, w_s, w_a, float(strength))

    def _encoder(
        self, tensor: str
    ) -> tuple[list[Level], tuple[int, Bridge] | None, list[str], str]:
        """Levels, bridge, and the levels' tensors, finest first; the packed input."""
        levels, tensors, bridge = list[Level](), list[str](), None
        while True:
            tensors.append(tensor)
            if self._kind(tensor) == "fastbts.SemanticBridge":
                bridge = len(levels), self._bridge(tensor)
                tensor = self.graph.makers[tensor].inputs[0]
            tensor, units = self.units(tensor)
            levels.append(Level(units))
            if units[0].stride == 1:
                break
        if bridge is not None:
            bridge = len(levels) - 1 - bridge[0], bridge[1]
        return levels[::-1], bridge, tensors[::-1], tensor

    def _bridge(self, tensor: str) -> Bridge:
        node = self.graph.makers[tensor]
        source, reduce = self.pointwise(node.inputs[1])
        self.require(source == node.inputs[0], node, "a bridge that reduces its own input")
        conv, bias, view, expand = (self.weight(node, i) for i in range(2, 6))
        return Bridge(reduce, BridgeWeights(conv, bias, view, expand))

    def _fusion(self, tensor: str, patch: int) -> Fusion | None:
        if self._kind(tensor) != "Where":
            self._packed(tensor, patch)
            return None
        where = self.graph.makers[tensor]
        packed = self.maker(where.inputs[0], "Equal").inputs[0]
        self._packed(packed, patch)
        product = self.maker(where.inputs[2], "Mul")
        chain = ("Unsqueeze", "Unsqueeze", "Reshape", "Expand", "Unsqueeze", "Mul", "Sigmoid")
        gate_input, gate = self.linear(self.follow(product.inputs[1], *chain).inputs[0])
        present = self.follow(gate_input, "Cast", "Greater", "ReduceMax", "Abs", "Slice")
        self.require(
            present.inputs[0] == product.inputs[0] == packed, where, "fusion of the packed input"
        )
        return Fusion(gate, self.weight(where, 1).reshape(-1)[:: patch**3])

    def _packed(self, tensor: str, patch: int) -> None:
        if patch == 2:
            order = self.follow(tensor, "Reshape", "Transpose")
            self.require(_fits(order, perm=PACK), order, "voxels packed into channels")
            tensor = self.maker(order.inputs[0], "Reshape").inputs[0]
        if tensor != "volume":
            self.maker(tensor, "the input volume")

    def _cross_attention(self, tensor: str) -> str:
        """The encoder's tensor under the bottleneck; notes what guidance adds to it."""
        if self._kind(tensor) != "Add":
            return tensor
        add = self.graph.makers[tensor]
        self.seen["bottleneck"] = tensor
        out = self.follow(add.inputs[1], "Reshape", "Transpose")
        read, self.seen["to_image"] = self.linear(out.inputs[0])
        keys, query, self.seen["text_value"] = self._attention(read)
        self.seen["image_asks"] = self._of_voxels(query, add.inputs[0])
        table, self.seen["text_key"] = self.linear(keys)
        self.same("table", table)
        value_table, self.seen["text_value"] = self.linear(self.seen["text_value"])
        self.same("table", value_table)
        change = self.maker(table, "Add")
        read, self.seen["to_text"] = self.linear(change.inputs[1])
        keys, query, values = self._attention(read)
        self.seen["image_key"] = self._of_voxels(keys, add.inputs[0])
        self.seen["image_value"] = self._of_voxels(values, add.inputs[0])
        source, self.seen["text_asks"] = self.linear(query)
        self.require(source == change.inputs[0], change, "text vectors that are asked for and kept")
        self.seen["first table"] = self.follow(source, "Expand", "Unsqueeze").inputs[0]
        return add.inputs[0]

    def _attention(self, tensor: str) -> tuple[str, str, str]:
        """Keys, queries and values of softmax(q k^T / sqrt(E)) v."""
        product = self.maker(tensor, "MatMul")
        scores = self.follow(product.inputs[0], "Softmax", "Div", "MatMul")
        keys = self.maker(scores.inputs[1], "Transpose")
        return keys.inputs[0], scores.inputs[0], product.inputs[1]

    def _of_voxels(self, tensor: str, features: str) -> Linear:
        """A linear layer of the voxels of some features."""
        voxels, layer = self.linear(tensor)
        node = self.follow(voxels, "Transpose", "Reshape")
        self.require(node.inputs[0] == features, node, "attention to the encoder's last level")
        return layer

    def _guidance(self, tensors: list[str], bridge: tuple[int, Bridge] | None) -> Guidance:
        table = self._noted("first table", "cross-attention at the bottleneck")
        gelu = self.maker(table, "Gelu")
        scaled, project = self.linear(gelu.inputs[0])
        product = self.maker(scaled, "Mul")
        if product.inputs[0] != "text":
            self.maker(product.inputs[0], "the input text")
        project = Linear(project.weight * self.weight(product, 1), project.bias)
        maps = self._similarity(table, tensors, bridge)
        trunk = self.maker(self._noted("trunk", "FiLM in the decoder"), "LeakyRelu")
        joined, layer = self.linear(trunk.inputs[0])
        concat = self.maker(joined, "Concat")
        self.same("pooled", concat.inputs[0])
        mean = self.maker(concat.inputs[0], "ReduceMean")
        self.require(
            mean.inputs[0] == self.seen.get("bottleneck"), mean, "the mean of the bottleneck"
        )
        self.same("table", self.maker(concat.inputs[1], "Reshape").inputs[0])
        names = ("text_asks", "image_key", "image_value", "to_text")
        more = ("image_asks", "text_key", "text_value", "to_image")
        layers = {name: self.seen[name] for name in (*names, *more)}
        return Guidance(table=project, trunk=layer, **maps, **layers)

    def _similarity(
        self, table: str, tensors: list[str], bridge: tuple[int, Bridge] | None
    ) -> dict[str, Any]:
        add = self.maker(self._noted("maps", "semantic attention in the decoder"), "Add")
        product = self.maker(add.inputs[0], "Mul")
        cosine = self.follow(product.inputs[1], "Reshape", "MatMul")
        source, text = self.linear(self._normalized(cosine.inputs[0]))
        voxels = self.maker(cosine.inputs[1], "Reshape")
        features, image = self.pointwise(self._normalized(voxels.inputs[0]))
        self.require(
            source == table and bridge is not None and features == tensors[bridge[0]],
            add,
            "similarity maps of the text and the bridge",
        )
        scale, bias = float(self.weight(product, 0)), self.weight(add, 1).reshape(-1)
        return {"image": image, "text": text, "scale": scale, "bias": bias}

    def _normalized(self, tensor: str) -> str:
        div = self.maker(tensor, "Div")
        length = self.follow(div.inputs[1], "Expand", "Clip", "ReduceL2")
        self.require(length.inputs[0] == div.inputs[0], div, "vectors of length 1")
        return div.inputs[0]

    def _text_head(self, node: Node) -> tuple[Linear, tuple[Linear, Linear]]:
        add = self.maker(node.inputs[1], "Add")
        change = self.maker(add.inputs[1], "Reshape")
        hidden, second = self.linear(change.inputs[0])
        act = self.maker(hidden, "LeakyRelu")
        joined, first = self.linear(act.inputs[0])
        concat = self.maker(joined, "Concat")
        self.same("table", concat.inputs[1])
        pooled = self.follow(concat.inputs[0], "Expand", "Unsqueeze").inputs[0]
        self.same("pooled", pooled)
        return Linear(self.weight(add, 0), self.weight(node, 2)), (first, second)


def _fits(node: Node, **expected: Any) -> bool:
    """Whether a node has these attributes."""
    found = attributes(node)
    return all(found.get(name) == value for name, value in expected.items())


def _number(node: Node, name: str, default: float = np.inf) -> float:
    value = attributes(node).get(name, default)
    return float(value) if isinstance(value, int | float) else np.inf


def _kind(node: Node) -> str:
    return f"{node.domain}.{node.op}" if node.domain else node.op
