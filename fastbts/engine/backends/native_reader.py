"""Reads the native engine's plan from the nodes of an ONNX that `training export` wrote.

The graph is followed from the logits backwards, so that a file whose nodes differ from those of the
network (training/model) is refused, whatever the names of its tensors. Nodes that only compute
shapes are not looked at.
"""

from __future__ import annotations

from typing import Any

from fastbts.engine.backends.native_layers import SLOPE, LayerReader, fits, number
from fastbts.engine.backends.native_plan import (
    Bridge,
    Fusion,
    Guidance,
    Level,
    Linear,
    Packing,
    Plan,
)
from fastbts.engine.onnx_graph import OnnxGraph, read_graph
from fastbts.engine.onnx_parts import Node
from fastbts.errors import EngineFileError
from fastbts.ops import AttentionWeights, BridgeWeights
from fastbts.ops.network import COLUMNS

UNPACK, PACK = [0, 1, 5, 2, 6, 3, 7, 4], [0, 1, 3, 5, 7, 2, 4, 6]
"""Orders of axes of `unpack_voxels` and `pack_voxels` (training/model/blocks.py)."""


def read_plan(graph: OnnxGraph, path: str) -> Plan:
    """The network of a graph.

    Raises:
        EngineFileError: A node differs from those of the network.
    """
    return _Reader(graph, path).read()


def read_packing(onnx_bytes: bytes | memoryview, path: str) -> Packing | None:
    """The packing of a network; None for one that packs no voxels, or in another way than ours."""
    try:
        return _Reader(read_graph(onnx_bytes), path).packing()
    except EngineFileError:
        return None


class _Reader(LayerReader):
    """Reads the parts of the network."""

    def packing(self) -> Packing | None:
        logits, patch = self._unpacked()
        if patch == 1:
            return None
        entry = self._entry()
        return Packing(patch, self._fusion(entry, patch), entry, logits)

    def _entry(self) -> str:
        """The packed input, after fusion if there is one."""
        makers = self.graph.makers
        packed = {
            name
            for name, node in makers.items()
            if node.op == "Reshape" and fits(makers.get(node.inputs[0], node), perm=PACK)
        }
        equal = {name for name, node in makers.items() if packed & {*node.inputs[:1]}}
        fused = (
            name for name, node in makers.items() if node.op == "Where" and node.inputs[0] in equal
        )
        return next(fused, next(iter(packed), ""))

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
        self.require(
            mlp is None or len(head.bias) <= COLUMNS,
            mixed,
            f"at most {COLUMNS} channels of a text-conditioned head",
        )
        return Plan(patch, encoder, decoder, head, fusion, bridge, guidance, mlp)

    def _reads_text(self) -> bool:
        return bool({"table", "first table", "trunk", "maps"} & self.seen.keys())

    def _unpacked(self) -> tuple[str, int]:
        """The tensor of packed logits, and p."""
        node = self.maker("logits", "Reshape", "Conv", "fastbts.CaseConv")
        if node.op != "Reshape":
            return "logits", 1
        order = self.maker(node.inputs[0], "Transpose")
        self.require(fits(order, perm=UNPACK), order, "voxels unpacked from channels")
        return self.maker(order.inputs[0], "Reshape").inputs[0], 2

    def _decoder(self, tensor: str) -> tuple[list[Level], str, list[str]]:
        """Levels, coarsest first; the bottleneck's tensor; skips, coarsest first."""
        levels, skips = list[Level](), list[str]()
        while self._is_decoder(tensor):
            joined, units = self.units(tensor)
            concat = self.maker(joined, "Concat")
            self.require(
                fits(concat, axis=1) and len(concat.inputs) == 2 and units[0].stride == 1,
                concat,
                "a decoder block of two concatenated features, stride 1",
            )
            up, skip = self.maker(concat.inputs[0], "ConvTranspose"), concat.inputs[1]
            self.require(
                fits(up, kernel_shape=[2] * 3, strides=[2] * 3, pads=[0] * 6, group=1),
                up,
                "a transposed convolution 2^3, stride 2",
            )
            gate = None
            if self.kind(skip) == "fastbts.SemanticAttention":
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
        if self.kind(tensor) != "LeakyRelu":
            return False
        joined, _ = self.units(tensor)
        return self.kind(joined) == "Concat"

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
            if self.kind(tensor) == "fastbts.SemanticBridge":
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
        if self.kind(tensor) != "Where":
            self._packed(tensor, patch)
            return None
        where = self.graph.makers[tensor]
        packed = self.maker(where.inputs[0], "Equal").inputs[0]
        self._packed(packed, patch)
        product = self.maker(where.inputs[2], "Mul")
        chain = ("Unsqueeze", "Unsqueeze", "Reshape", "Expand", "Unsqueeze", "Mul", "Sigmoid")
        gate_input, gate = self.linear(self.follow(product.inputs[1], *chain).inputs[0])
        present = self.follow(gate_input, "Cast", "Greater", "ReduceMax", "Abs").inputs[0]
        if patch == 2:  # first voxels of the blocks
            present = self.maker(present, "Slice").inputs[0]
        twice = self.follow(product.inputs[1], *chain[:-1])
        self.require(
            present == product.inputs[0] == packed
            and self.number(twice, 1) == 2
            and self.number(self.graph.makers[where.inputs[0]], 1) == 0
            and self.number(self.follow(gate_input, "Cast", "Greater"), 1) == 0,
            where,
            "fusion of the packed input",
        )
        return Fusion(gate, self.weight(where, 1).reshape(-1)[:: patch**3])

    def _packed(self, tensor: str, patch: int) -> None:
        if patch == 2:
            order = self.follow(tensor, "Reshape", "Transpose")
            self.require(fits(order, perm=PACK), order, "voxels packed into channels")
            tensor = self.maker(order.inputs[0], "Reshape").inputs[0]
        if tensor != "volume":
            self.maker(tensor, "the input volume")

    def _cross_attention(self, tensor: str) -> str:
        """The encoder's tensor under the bottleneck; notes what guidance adds to it."""
        if self.kind(tensor) != "Add":
            return tensor
        add = self.graph.makers[tensor]
        self.seen["bottleneck"] = tensor
        out = self.follow(add.inputs[1], "Reshape", "Transpose")
        read, self.seen["to_image"] = self.linear(out.inputs[0])
        width = self.seen["to_image"].weight.shape[1]
        keys, query, self.seen["text_value"] = self.attention(read, width)
        self.seen["image_asks"] = self.of_voxels(query, add.inputs[0])
        table, self.seen["text_key"] = self.linear(keys)
        self.same("table", table)
        value_table, self.seen["text_value"] = self.linear(self.seen["text_value"])
        self.same("table", value_table)
        change = self.maker(table, "Add")
        read, self.seen["to_text"] = self.linear(change.inputs[1])
        keys, query, values = self.attention(read, width)
        self.seen["image_key"] = self.of_voxels(keys, add.inputs[0])
        self.seen["image_value"] = self.of_voxels(values, add.inputs[0])
        source, self.seen["text_asks"] = self.linear(query)
        self.require(source == change.inputs[0], change, "text vectors that are asked for and kept")
        self.seen["first table"] = self.follow(source, "Expand", "Unsqueeze").inputs[0]
        return add.inputs[0]

    def _guidance(self, tensors: list[str], bridge: tuple[int, Bridge] | None) -> Guidance:
        table = self.noted("first table", "cross-attention at the bottleneck")
        gelu = self.maker(table, "Gelu")
        self.require(fits(gelu, approximate="none"), gelu, "Gelu without approximation")
        scaled, project = self.linear(gelu.inputs[0])
        product = self.maker(scaled, "Mul")
        if product.inputs[0] != "text":
            self.maker(product.inputs[0], "the input text")
        project = Linear(project.weight * self.weight(product, 1), project.bias)
        maps = self._similarity(table, tensors, bridge)
        trunk = self.maker(self.noted("trunk", "FiLM in the decoder"), "LeakyRelu")
        self.require(abs(number(trunk, "alpha") - SLOPE) < 1e-6, trunk, "the slope 0.01")
        joined, layer = self.linear(trunk.inputs[0])
        concat = self.maker(joined, "Concat")
        self.require(fits(concat, axis=1), concat, "FiLM of the mean and the text")
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
        add = self.maker(self.noted("maps", "semantic attention in the decoder"), "Add")
        product = self.maker(add.inputs[0], "Mul")
        cosine = self.follow(product.inputs[1], "Reshape", "MatMul")
        source, text = self.linear(self.normalized(cosine.inputs[0]))
        voxels = self.maker(cosine.inputs[1], "Reshape")
        features, image = self.pointwise(self.normalized(voxels.inputs[0]))
        self.require(
            source == table and bridge is not None and features == tensors[bridge[0]],
            add,
            "similarity maps of the text and the bridge",
        )
        scale, bias = float(self.weight(product, 0)), self.weight(add, 1).reshape(-1)
        return {"image": image, "text": text, "scale": scale, "bias": bias}

    def _text_head(self, node: Node) -> tuple[Linear, tuple[Linear, Linear]]:
        add = self.maker(node.inputs[1], "Add")
        change = self.maker(add.inputs[1], "Reshape")
        hidden, second = self.linear(change.inputs[0])
        act = self.maker(hidden, "LeakyRelu")
        joined, first = self.linear(act.inputs[0])
        concat = self.maker(joined, "Concat")
        self.require(
            fits(concat, axis=2) and abs(number(act, "alpha") - SLOPE) < 1e-6,
            concat,
            "a head of the mean and the text",
        )
        self.same("table", concat.inputs[1])
        pooled = self.follow(concat.inputs[0], "Expand", "Unsqueeze").inputs[0]
        self.same("pooled", pooled)
        return Linear(self.weight(add, 0), self.weight(node, 2)), (first, second)
