"""Reads and changes the parts of an ONNX file that fastbts needs, without the `onnx` package.

Field numbers: onnx.proto3 of ONNX 1.21 (ModelProto, GraphProto, NodeProto, TensorProto,
FunctionProto, StringStringEntryProto).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import EngineFileError

GRAPH, METADATA, FUNCTION = 7, 14, 25  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
OP_TYPE, DOMAIN = 4, 7  # of NodeProto
FUNCTION_NAME = 1  # of FunctionProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
FLOAT = 1  # TensorProto.DataType


def read_metadata(onnx_bytes: bytes | memoryview) -> dict[str, str]:
    """The file's `metadata_props`, key -> value.

    Raises:
        EngineFileError: The bytes are not a protobuf message.
    """
    entries = [dict(fields(entry)) for entry in each(onnx_bytes, METADATA)]
    return {text(entry.get(1, b"")): text(entry.get(2, b"")) for entry in entries}


def read_default(onnx_bytes: bytes | memoryview, name: str) -> NDArray[np.float32] | None:
    """The float32 initializer of that name: the default of the input of that name. None if absent.

    Raises:
        EngineFileError: Not a protobuf message, or the tensor is not float32 in `raw_data`.
    """
    for graph in each(onnx_bytes, GRAPH):
        for tensor in each(graph, INITIALIZER):
            parts = list(fields(tensor))
            if text(dict(parts).get(NAME, b"")) == name:
                return _array(parts, name)
    return None


def drop_default(onnx_bytes: bytes | memoryview, name: str) -> bytes:
    """The same ONNX without the initializer of that name, so that the input has no default.

    Raises:
        EngineFileError: The bytes are not a protobuf message.
    """

    def dropped(number: int, part: memoryview) -> bytes | None:
        return b"" if number == INITIALIZER and _name(part, NAME) == name else None

    return _with_graph(onnx_bytes, dropped)


def call_body(onnx_bytes: bytes | memoryview, name: str, domain: str) -> bytes:
    """The same ONNX with every node of type `name` in another domain, so that its body there runs.

    A body is a model-local function; without one of that name, nothing is changed.

    Raises:
        EngineFileError: The bytes are not a protobuf message.
    """
    if name not in (_name(function, FUNCTION_NAME) for function in each(onnx_bytes, FUNCTION)):
        return bytes(onnx_bytes)

    def moved(number: int, part: memoryview) -> bytes | None:
        if number != NODE or _name(part, OP_TYPE) != name:
            return None
        # Of a field that is written twice, the last one counts.
        return message(NODE, b"".join([part, message(DOMAIN, domain)]))

    return _with_graph(onnx_bytes, moved)


def _with_graph(
    onnx_bytes: bytes | memoryview, change: Callable[[int, memoryview], bytes | None]
) -> bytes:
    """The same ONNX with a changed graph.

    `change`: see `edited`.
    """

    def changed(number: int, part: memoryview) -> bytes | None:
        return message(GRAPH, edited(part, change)) if number == GRAPH else None

    return edited(onnx_bytes, changed)


def edited(content: bytes | memoryview, change: Callable[[int, memoryview], bytes | None]) -> bytes:
    """A message with some of its parts replaced.

    Args:
        content: The message.
        change: Gets number and value of each field that is a message or a string; returns the bytes
            to write in its place, or None to keep it.
    """
    parts = (
        (change(number, value) if isinstance(value, memoryview) else None, span)
        for number, value, span in spans(content)
    )
    return b"".join(span if new is None else new for new, span in parts)


def drop_bodies(onnx_bytes: bytes | memoryview, names: Collection[str]) -> bytes:
    """The same ONNX without the model-local functions (bodies) of those names.

    Raises:
        EngineFileError: The bytes are not a protobuf message.
    """
    return b"".join(
        span
        for number, value, span in spans(onnx_bytes)
        if number != FUNCTION or isinstance(value, int) or _name(value, FUNCTION_NAME) not in names
    )


def _name(message: memoryview, field: int) -> str:
    return text(dict(fields(message)).get(field, b""))


def message(number: int, content: bytes | memoryview | str) -> bytes:
    """A field that holds a message or a string."""
    content = content.encode() if isinstance(content, str) else content
    return b"".join([_written(number << 3 | 2), _written(len(content)), content])


def integer(number: int, value: int) -> bytes:
    """A field that holds a number from 0 up."""
    return _written(number << 3) + _written(value)


def _array(parts: list[tuple[int, int | memoryview]], name: str) -> NDArray[np.float32]:
    single, shape = dict(parts), []
    for number, value in parts:
        if number == DIMS:  # packed or one by one: writers differ
            shape += [value] if isinstance(value, int) else list(varints(value))
    raw = single.get(RAW_DATA)
    if (
        single.get(DATA_TYPE) != FLOAT
        or not isinstance(raw, memoryview)
        or len(raw) != 4 * int(np.prod(shape, dtype=object))
    ):
        raise EngineFileError(
            f"ONNX initializer {name!r}: expected float32 raw data of shape {shape}; "
            "export it again"
        )
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def each(message: bytes | memoryview | int, wanted: int) -> Iterator[memoryview]:
    """The messages or strings in one field of a message."""
    for number, value in fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def fields(message: bytes | memoryview | int) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message."""
    return ((number, value) for number, value, _ in spans(message))


def spans(message: bytes | memoryview | int) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, value and bytes of each field: https://protobuf.dev/programming-guides/encoding."""
    if isinstance(message, int):
        raise EngineFileError("not an ONNX file: a number in place of a message; export it again")
    view, at = memoryview(message), 0
    while at < len(view):
        begin = at
        tag, at = _varint(view, at)
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        value: int | memoryview = 0
        if kind in (0, 2):
            value, at = _varint(view, at)
            size = value if kind == 2 else 0
        if size > len(view) - at or kind not in (0, 1, 2, 5):
            raise EngineFileError("not an ONNX file: damaged or truncated; export it again")
        if kind:
            value = view[at : at + size]
        at += size
        yield tag >> 3, value, view[begin:at]


def varints(view: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    if at < len(view) and view[at] < 128:  # as most are
        return view[at], at + 1
    value = 0
    for n, byte in enumerate(view[at : at + 10]):
        value |= (byte & 127) << 7 * n
        if byte < 128:
            return value, at + n + 1
    raise EngineFileError("not an ONNX file: a number does not end; export it again")


def _written(value: int) -> bytes:
    """A number as a varint."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def text(value: int | bytes | memoryview) -> str:
    """The value of a string field."""
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")
