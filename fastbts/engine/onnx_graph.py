"""The nodes and weights of an ONNX file as a graph to follow, for engines of our own.

Field numbers: onnx.proto3 of ONNX 1.21 (as in `onnx_bytes`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fastbts.engine.onnx_bytes import GRAPH, INITIALIZER, NODE, each, fields, text, varints
from fastbts.engine.onnx_parts import (
    A_FLOAT,
    A_INT,
    A_NAME,
    A_TYPE,
    ATTRIBUTE,
    INT_TYPE,
    Node,
    read_node,
    read_tensor,
)

A_STRING, A_INTS = 4, 8  # of AttributeProto
FLOAT_TYPE, STRING_TYPE, INTS_TYPE = 1, 3, 7  # AttributeProto.AttributeType


@dataclass(frozen=True)
class OnnxGraph:
    """A graph.

    Attributes:
        makers: The node that makes a tensor, by the tensor's name.
        weights: The float32 and float16 initializers by name, as in the file and not copied.
    """

    makers: dict[str, Node]
    weights: dict[str, NDArray[Any]]


def read_graph(onnx_bytes: bytes | memoryview) -> OnnxGraph:
    """Reads all nodes and weights.

    Raises:
        EngineFileError: Not an ONNX file, or a weight whose size is not that of its shape.
    """
    graphs = list(each(onnx_bytes, GRAPH))
    nodes = [read_node(part) for graph in graphs for part in each(graph, NODE)]
    tensors = [read_tensor(part) for graph in graphs for part in each(graph, INITIALIZER)]
    return OnnxGraph(
        {name: node for node in nodes for name in node.outputs},
        {tensor.name: tensor.stored for tensor in tensors if tensor.stored is not None},
    )


def attributes(node: Node) -> dict[str, Any]:
    """The attributes of a node that are numbers, strings or lists of integers, by name."""
    return dict(_attribute(part) for part in each(node.rest, ATTRIBUTE))


def _attribute(message: memoryview) -> tuple[str, Any]:
    single = dict(fields(message))
    name, kind, value = text(single.get(A_NAME, b"")), single.get(A_TYPE), None
    if kind == INT_TYPE:
        return name, single.get(A_INT, 0)
    if kind == FLOAT_TYPE:
        number = single.get(A_FLOAT, 0)
        value = 0.0 if isinstance(number, int) else struct.unpack("<f", number)[0]
    if kind == STRING_TYPE:
        value = text(single.get(A_STRING, b""))
    if kind == INTS_TYPE:
        parts = (part for number, part in fields(message) if number == A_INTS)
        # Packed or one by one: writers differ.
        value = [i for p in parts for i in ([p] if isinstance(p, int) else varints(p))]
    return name, value
