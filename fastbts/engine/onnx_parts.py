"""Nodes and tensors of an ONNX, read from and written to protobuf bytes.

Field numbers: onnx.proto3 of ONNX 1.21 (as in `onnx_bytes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.onnx_bytes import (
    DATA_TYPE,
    DIMS,
    DOMAIN,
    NAME,
    OP_TYPE,
    RAW_DATA,
    fields,
    integer,
    message,
    spans,
    text,
    varints,
)
from fastbts.errors import EngineFileError

FLOAT, INT8, FLOAT16, BFLOAT16 = 1, 3, 10, 16  # TensorProto.DataType
INPUT, OUTPUT, ATTRIBUTE = 1, 2, 5  # of NodeProto
FLOAT_DATA = 4  # of TensorProto
A_NAME, A_FLOAT, A_INT, A_TENSOR, A_FLOATS, A_TYPE = 1, 2, 3, 5, 7, 20  # of AttributeProto
INT_TYPE, TENSOR_TYPE = 2, 4  # AttributeProto.AttributeType


@dataclass(frozen=True)
class Node:
    """A node: `rest` has its other fields as bytes, with op and domain."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rest: bytes = b""

    def renamed(self, names: dict[str, str]) -> Node:
        """The same node on other inputs; `names` maps old to new."""
        return replace(self, inputs=tuple(names.get(name, name) for name in self.inputs))

    def packed(self) -> bytes:
        """The node as protobuf bytes."""
        ends = [message(INPUT, name) for name in self.inputs]
        return b"".join([*ends, *(message(OUTPUT, name) for name in self.outputs), self.rest])


def read_node(content: bytes | memoryview) -> Node:
    """Reads a node.

    Raises:
        EngineFileError: The bytes are not a protobuf message, or the node has no outputs.
    """
    ends: dict[int, list[str]] = {INPUT: [], OUTPUT: []}
    rest, names = [], {OP_TYPE: "", DOMAIN: ""}
    for number, value, span in spans(content):
        if number in ends:
            ends[number].append(text(value))
            continue
        rest.append(span)
        if number in names:
            names[number] = text(value)
    inputs, outputs = (tuple(names) for names in ends.values())
    if not outputs:
        raise EngineFileError(f"ONNX node {names[OP_TYPE]!r} has no outputs; export it again")
    return Node(names[OP_TYPE], names[DOMAIN], inputs, outputs, b"".join(rest))


def make_node(op: str, inputs: Sequence[str], outputs: Sequence[str], **numbers: int) -> Node:
    """A standard node whose attributes are numbers from 0 up."""
    rest = [message(OP_TYPE, op)]
    for name, value in numbers.items():
        about = message(A_NAME, name) + integer(A_INT, value) + integer(A_TYPE, INT_TYPE)
        rest.append(message(ATTRIBUTE, about))
    return Node(op, "", tuple(inputs), tuple(outputs), b"".join(rest))


def make_tensor(name: str, kind: int, shape: Sequence[int], raw: bytes) -> bytes:
    """A tensor as protobuf bytes.

    Args:
        name: Its name, "" in an attribute.
        kind: TensorProto.DataType.
        shape: Its shape.
        raw: Its elements, little-endian.
    """
    sizes = [integer(DIMS, size) for size in shape]
    return b"".join([*sizes, integer(DATA_TYPE, kind), message(NAME, name), message(RAW_DATA, raw)])


@dataclass(frozen=True)
class Tensor:
    """A tensor; `stored` are its values as in the file, None if neither float32 nor float16."""

    name: str
    kind: int
    stored: NDArray[Any] | None

    @property
    def values(self) -> NDArray[np.float32] | None:
        """A copy as float32, if it holds floats."""
        return None if self.stored is None else self.stored.astype(np.float32)


def read_tensor(content: bytes | memoryview) -> Tensor:
    """Reads a tensor.

    Raises:
        EngineFileError: The bytes are not a protobuf message, or its size is not that of its shape.
    """
    found, shape, floats = dict(fields(content)), list[int](), b""
    for number, value in fields(content):
        if number == DIMS:  # packed or one by one: writers differ
            shape += [value] if isinstance(value, int) else list(varints(value))
        elif number == FLOAT_DATA and isinstance(value, memoryview):
            floats += bytes(value)
    kind, name, raw = found.get(DATA_TYPE, 0), text(found.get(NAME, b"")), found.get(RAW_DATA, b"")
    if kind not in (FLOAT, FLOAT16):
        return Tensor(name, kind if isinstance(kind, int) else 0, None)
    content = floats if floats and kind == FLOAT else b"" if isinstance(raw, int) else raw
    size = 4 if kind == FLOAT else 2
    if len(content) != size * int(np.prod(shape, dtype=object)):
        raise EngineFileError(
            f"ONNX tensor {name!r}: expected {size} bytes for each element of shape {shape}, got "
            f"{len(content)} bytes; export it again"
        )
    return Tensor(name, int(kind), np.frombuffer(content, f"<f{size}").reshape(shape))
