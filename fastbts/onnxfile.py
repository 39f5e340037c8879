"""Reads the few things of an ONNX file that fastbts itself needs, without the `onnx` package: metadata and small tensors.

Field numbers: onnx.proto3 of ONNX 1.21 (ModelProto, GraphProto, TensorProto, StringStringEntryProto).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import EngineFileError

GRAPH, METADATA = 7, 14  # of ModelProto
INITIALIZER = 5  # of GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
FLOAT = 1  # TensorProto.DataType


def read_metadata(onnx_bytes: bytes | memoryview) -> dict[str, str]:
    """The file's `metadata_props`, key -> value.

    Raises:
        EngineFileError: The bytes are no protobuf message.
    """
    entries = [dict(_fields(entry)) for entry in _each(onnx_bytes, METADATA)]
    return {_text(entry.get(1, b"")): _text(entry.get(2, b"")) for entry in entries}


def read_default(onnx_bytes: bytes | memoryview, name: str) -> NDArray[np.float32] | None:
    """The float32 initializer of that name, which is the default of an input with the same name; None where there is none.

    Raises:
        EngineFileError: The bytes are no protobuf message, or the tensor is not float32 in `raw_data`.
    """
    for graph in _each(onnx_bytes, GRAPH):
        for tensor in _each(graph, INITIALIZER):
            fields = list(_fields(tensor))
            if _text(dict(fields).get(NAME, b"")) == name:
                return _array(fields, name)
    return None


def _array(fields: list[tuple[int, int | memoryview]], name: str) -> NDArray[np.float32]:
    single, shape = dict(fields), []
    for number, value in fields:
        if number == DIMS:  # packed or one by one, as the writer likes
            shape += [value] if isinstance(value, int) else list(_varints(value))
    raw = single.get(RAW_DATA)
    if single.get(DATA_TYPE) != FLOAT or not isinstance(raw, memoryview) or len(raw) != 4 * int(np.prod(shape, dtype=object)):
        raise EngineFileError(f"ONNX initializer {name!r}: expected float32 raw data of shape {shape}; export it again")
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _each(message: bytes | memoryview | int, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: bytes | memoryview | int) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of a message, one after the other: https://protobuf.dev/programming-guides/encoding."""
    if isinstance(message, int):
        raise EngineFileError("not an ONNX file: a number where a message should be")
    view, at = memoryview(message), 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if kind == 0:
            number, at = _varint(view, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _varint(view, at)
        if size > len(view) - at or kind not in (1, 2, 5):
            raise EngineFileError("not an ONNX file: it is damaged or cut short; export it again")
        yield tag >> 3, view[at : at + size]
        at += size


def _varints(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for n, byte in enumerate(view[at : at + 10]):
        value |= (byte & 127) << 7 * n
        if byte < 128:
            return value, at + n + 1
    raise EngineFileError("not an ONNX file: a number without end; export it again")


def _text(value: int | bytes | memoryview) -> str:
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")
