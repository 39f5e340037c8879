"""Rewrites an ONNX that computes in float32 so that it computes in float16 or bfloat16.

Inputs and logits stay float32. Sums over many numbers stay float32 too, between two Casts: squares
of a convolution's results (up to 1000 in the shipped network) are larger than float16's 65504. On
64^3 voxels of Brats18_CBICA_AMH_1, emulated, the shipped network's logits (up to 55) are off by
0.04; with the norms' sums in float16 by 31. TensorRT-RTX fuses these Casts: activations stay half.

`emulate_half` gives the same network for machines that do not compute in these types: it computes
in float32 and rounds the result of each node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.onnx_bytes import (
    FUNCTION,
    FUNCTION_NAME,
    GRAPH,
    INITIALIZER,
    METADATA,
    NODE,
    each,
    edited,
    fields,
    integer,
    message,
    spans,
    text,
)
from fastbts.engine.onnx_parts import (
    A_INT,
    A_NAME,
    A_TENSOR,
    A_TYPE,
    ATTRIBUTE,
    BFLOAT16,
    FLOAT,
    FLOAT16,
    INT_TYPE,
    TENSOR_TYPE,
    Node,
    make_node,
    make_tensor,
    read_node,
    read_tensor,
)
from fastbts.errors import EngineFileError

INPUT, OUTPUT, VALUE_INFO = 11, 12, 13  # of GraphProto
OPSET = 8  # of ModelProto
FUNCTION_INPUT, FUNCTION_NODE, FUNCTION_OPSET = 4, 7, 9  # of FunctionProto
END_NAME = 1  # of ValueInfoProto

IN_FLOAT32 = {
    **{"InstanceNormalization": 3, "ReduceMean": 1, "ReduceL2": 1, "Softmax": 1},
    "Clip": 3,  # its bounds are often beyond what float16 holds
}
"""Nodes of the graph that stay in float32, and how many of their inputs are such numbers."""
EXACT_BODIES = ("InstanceNormalization",)
"""Bodies that stay in float32, as the nodes they stand for do."""
NOT_FLOAT = ("Shape", "Equal", "Greater", "QuantizeLinear")
"""Nodes whose results are not floating-point numbers."""
FLOAT_CONSTANTS = ("value_float", "value_floats")
"""Attributes of a Constant that is float32 whatever the network computes in."""
MOVES = (
    *("Reshape", "Transpose", "Concat", "Unsqueeze", "Squeeze", "Expand", "Slice", "Split"),
    *("Gather", "Constant"),
)
"""Nodes that only move numbers, so that there is nothing to round."""


@dataclass(frozen=True)
class Half:
    """A floating-point type of 16 bits."""

    name: str
    kind: int
    """TensorProto.DataType."""
    largest: float
    smallest: float
    """Above 0."""
    opset: int
    """The first version of ONNX's operators that has the type."""
    lacking: Mapping[str, int] = field(default_factory=dict)
    """More nodes that stay in float32, also in bodies; as `IN_FLOAT32`."""

    def bits(self, values: NDArray[np.float32], what: str) -> NDArray[np.uint16]:
        """Rounds to nearest, ties to even. A number that is not 0 does not become 0.

        Raises:
            EngineFileError: A number is NaN or too large for the type.
        """
        largest = float(np.abs(values).max(initial=0))
        if not largest <= self.largest:
            raise EngineFileError(
                f"ONNX tensor {what!r}: expected numbers up to {self.largest:g}, which "
                f"{self.name} can hold, got {largest:g}; use precision bf16 or fp32"
            )
        tiny = np.copysign(np.float32(self.smallest), values)
        values = np.where((values != 0) & (np.abs(values) < self.smallest), tiny, values)
        if self.kind == FLOAT16:
            return values.astype("<f2").view("<u2")
        bits = values.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")

    def rounded(self, values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
        """The same, as float32."""
        bits = self.bits(values, what)
        if self.kind == FLOAT16:
            return bits.view("<f2").astype(np.float32)
        return (bits.astype("<u4") << 16).view("<f4")


HALVES = {
    "fp16": Half("float16", FLOAT16, 65504.0, 2.0**-24, opset=0),
    # TensorRT-RTX 1.7 has no transposed convolution in bfloat16.
    "bf16": Half("bfloat16", BFLOAT16, 255 * 2.0**120, 2.0**-126, 22, {"ConvTranspose": 3}),
}
"""Precision -> type."""


def to_half(onnx_bytes: bytes | memoryview, precision: str) -> bytes:
    """The same network, computing in "fp16" or "bf16" between float32 ends.

    Raises:
        EngineFileError: The bytes are no ONNX, or a weight is NaN or too large for the type.
    """
    return _Rewrite(HALVES[precision], emulated=False).model(onnx_bytes, precision)


def emulate_half(onnx_bytes: bytes | memoryview, precision: str) -> bytes:
    """The same network in float32, each result rounded as `to_half` makes it.

    Raises:
        EngineFileError: See `to_half`.
    """
    return _Rewrite(HALVES[precision], emulated=True).model(onnx_bytes, "fp32")


class _Rewrite:
    """Rewrites one model."""

    def __init__(self, half: Half, *, emulated: bool) -> None:
        self.half, self.emulated = half, emulated
        self.kind = FLOAT if emulated else half.kind

    def model(self, onnx_bytes: bytes | memoryview, precision: str) -> bytes:
        """The model, with that precision in its metadata."""

        def change(number: int, part: memoryview) -> bytes | None:
            if number == GRAPH:
                return message(GRAPH, self._graph(part))
            if number == FUNCTION:
                return message(FUNCTION, self._function(part))
            if number == OPSET:
                return message(OPSET, self._opset(part))
            return b"" if number == METADATA and _name(part, 1) == "precision" else None

        about = message(1, "precision") + message(2, precision)
        return edited(onnx_bytes, change) + message(METADATA, about)

    def _graph(self, graph: memoryview) -> bytes:
        inputs, outputs = (
            [_name(end, END_NAME) for end in each(graph, n)] for n in (INPUT, OUTPUT)
        )
        floats, kept = set(inputs), []
        for number, value, span in spans(graph):
            if number == INITIALIZER and isinstance(value, memoryview):
                tensor = read_tensor(value)
                floats |= {tensor.name} if tensor.kind == FLOAT else set()
                if tensor.name not in inputs:  # else it is the default of an input
                    span = memoryview(message(INITIALIZER, self._tensor(value)))
            if number not in (NODE, VALUE_INFO):
                kept.append(span)
        nodes = _Nodes(self, floats, {**IN_FLOAT32, **self.half.lacking}, outputs)
        for name in inputs:
            nodes.enter(name)
        for node in each(graph, NODE):
            nodes.add(read_node(node))
        return b"".join([*kept, *(message(NODE, node.packed()) for node in nodes.done)])

    def _function(self, function: memoryview) -> bytes:
        inputs = {text(name) for name in each(function, FUNCTION_INPUT)}
        nodes, is_exact = _Nodes(self, inputs, self.half.lacking), _is_exact(function)
        for node in () if is_exact else each(function, FUNCTION_NODE):
            nodes.add(read_node(node))

        def change(number: int, part: memoryview) -> bytes | None:
            if number == FUNCTION_OPSET:
                return message(FUNCTION_OPSET, self._opset(part))
            return b"" if number == FUNCTION_NODE and not is_exact else None

        done = (message(FUNCTION_NODE, node.packed()) for node in nodes.done)
        return b"".join([edited(function, change), *done])

    def _opset(self, entry: memoryview) -> bytes:
        """A domain and its version, which becomes at least `Half.opset` if the domain is ONNX's."""
        version = dict(fields(entry)).get(2, 0)
        if self.emulated or _name(entry, 1) or not isinstance(version, int):
            return bytes(entry)
        return integer(2, max(version, self.half.opset))

    def makes_float(self, node: Node) -> bool:
        """Whether the result of a Cast or a Constant is float32."""
        for name, found, _ in _attributes(node):
            if (name == "to" and found.get(A_INT) == FLOAT) or name in FLOAT_CONSTANTS:
                return True
            tensor = found.get(A_TENSOR)
            if isinstance(tensor, memoryview) and read_tensor(tensor).kind == FLOAT:
                return True
        return False

    def with_attributes(self, node: Node) -> Node:
        """The node with the types in its attributes, and the numbers in them, changed."""
        rest = [span for number, _, span in spans(node.rest) if number != ATTRIBUTE]
        for name, found, part in _attributes(node):
            content = self._content(node, name, found, part)
            if content is not None:
                part = memoryview(message(A_NAME, name) + content)
            rest.append(memoryview(message(ATTRIBUTE, part)))
        return replace(node, rest=b"".join(rest))

    def _content(
        self, node: Node, name: str, found: dict[int, int | memoryview], part: memoryview
    ) -> bytes | None:
        """Value and type of a changed attribute; None where it stays."""
        tensor = found.get(A_TENSOR)
        if (node.op, name, found.get(A_INT)) == ("Cast", "to", FLOAT):
            return integer(A_INT, self.kind) + integer(A_TYPE, INT_TYPE)
        if isinstance(tensor, memoryview):
            return message(A_TENSOR, self._tensor(tensor)) + integer(A_TYPE, TENSOR_TYPE)
        return None

    def _tensor(self, content: memoryview) -> bytes:
        """A tensor, rounded if it is float32."""
        tensor = read_tensor(content)
        values = tensor.values
        if tensor.kind != FLOAT or values is None:
            return bytes(content)
        change = self.half.rounded if self.emulated else self.half.bits
        return make_tensor(
            tensor.name, self.kind, values.shape, change(values, tensor.name).tobytes()
        )


class _Nodes:
    """The rewritten nodes of a graph or of a body.

    Args:
        rewrite: What to rewrite them to.
        floats: Names of the float32 values that the nodes begin with.
        in_float32: As `IN_FLOAT32`.
        ends: Outputs of the graph, which stay float32.
    """

    def __init__(
        self,
        rewrite: _Rewrite,
        floats: set[str],
        in_float32: Mapping[str, int],
        ends: Collection[str] = (),
    ) -> None:
        self.done: list[Node] = []
        self._rewrite, self._floats, self._ends = rewrite, floats, ends
        self._in_float32 = in_float32
        self._names: dict[str, str] = {}
        half, emulated = rewrite.half.kind, rewrite.emulated
        self._rounding = (half, FLOAT) if emulated else (half,)

    def enter(self, name: str) -> None:
        """Rounds an input of the graph."""
        self._names[name] = f"{name}:half"
        self._floats.add(name)
        self._cast(name, f"{name}:half", self._rounding)

    def add(self, node: Node) -> None:
        """Rewrites a node."""
        is_float = self._is_float(node)
        self._floats |= set(node.outputs) if is_float else set()
        node = self._rewrite.with_attributes(node).renamed(self._names)
        is_exact = any(name in FLOAT_CONSTANTS for name, _, _ in _attributes(node))
        if self._rewrite.emulated:
            is_exact |= is_float and node.op not in MOVES
        elif node.op in self._in_float32:
            node, is_exact = self._on_float32(node), True
        self._then_rounded(node, self._rounding if is_exact else ())

    def _is_float(self, node: Node) -> bool:
        if node.op in ("Cast", "Constant"):
            return self._rewrite.makes_float(node)
        return node.op not in NOT_FLOAT and not self._floats.isdisjoint(node.inputs)

    def _on_float32(self, node: Node) -> Node:
        """The node on float32 copies of its first inputs."""
        inputs = list(node.inputs)
        for n, name in enumerate(inputs[: self._in_float32[node.op]]):
            if not name:  # an optional input that is not given
                continue
            inputs[n] = f"{name}:{node.outputs[0]}:float32"
            self._cast(name, inputs[n], (FLOAT,))
        return replace(node, inputs=tuple(inputs))

    def _then_rounded(self, node: Node, rounding: tuple[int, ...]) -> None:
        """Appends a node and the Casts of its results."""
        halves = {name: f"{name}:half" if name in self._ends else name for name in node.outputs}
        exact = {name: f"{half}:exact" if rounding else half for name, half in halves.items()}
        self.done.append(replace(node, outputs=tuple(exact.values())))
        for name, half in halves.items():
            if rounding:
                self._cast(exact[name], half, rounding)
            if name in self._ends:
                self._names[name] = half
                self._cast(half, name, (FLOAT,))

    def _cast(self, source: str, target: str, kinds: tuple[int, ...]) -> None:
        for n, kind in enumerate(kinds, 1):
            result = target if n == len(kinds) else f"{target}:{n}"
            self.done.append(make_node("Cast", [source], [result], to=kind))
            source = result


def _attributes(node: Node) -> Iterator[tuple[str, dict[int, int | memoryview], memoryview]]:
    """Name, fields and bytes of each attribute."""
    for part in each(node.rest, ATTRIBUTE):
        found = dict(fields(part))
        yield text(found.get(A_NAME, b"")), found, part


def _is_exact(function: memoryview) -> bool:
    return _name(function, FUNCTION_NAME) in EXACT_BODIES


def _name(message: memoryview, field: int) -> str:
    return text(dict(fields(message)).get(field, b""))
