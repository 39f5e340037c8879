"""Writes int8 into an ONNX: QuantizeLinear and DequantizeLinear at the inputs of convolutions.

Symmetric, as TensorRT wants it: activations with one scale per tensor, weights with one per output
channel, stored as int8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.onnx_bytes import GRAPH, INITIALIZER, NODE, each, edited, message
from fastbts.engine.onnx_half import HALVES
from fastbts.engine.onnx_parts import (
    FLOAT,
    INT8,
    Node,
    Tensor,
    make_node,
    make_tensor,
    read_node,
    read_tensor,
)
from fastbts.errors import EngineFileError

QUANTIZED = "Conv"
"""Node that computes in int8. TensorRT-RTX 1.7 has no transposed convolution in int8."""
LARGEST = 127
HALF = HALVES["fp16"]
"""What the rest of the network computes in. Scales are numbers of this type."""


def to_int8(onnx_bytes: bytes | memoryview, ranges: Mapping[str, float]) -> bytes:
    """The same network with its convolutions in int8.

    Args:
        onnx_bytes: A network in float32.
        ranges: Name of a tensor -> largest absolute value, for the inputs of the convolutions. A
            convolution whose input has none stays as it is.
    Raises:
        EngineFileError: The bytes are no ONNX, or no convolution has a range.
    """

    def change(number: int, part: memoryview) -> bytes | None:
        return message(GRAPH, _Graph(part, ranges).packed()) if number == GRAPH else None

    return edited(onnx_bytes, change)


class _Graph:
    """Rewrites one graph."""

    def __init__(self, graph: memoryview, ranges: Mapping[str, float]) -> None:
        self._graph, self._ranges = graph, ranges
        self._nodes = [read_node(node) for node in each(graph, NODE)]
        self._makers = {name: node for node in self._nodes for name in node.outputs}
        tensors = map(read_tensor, each(graph, INITIALIZER))
        self._tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in tensors}
        self._new: list[bytes] = []
        self._done: set[str] = set()
        """Tensors that have an int8 copy."""

    def packed(self) -> bytes:
        """The graph with int8 convolutions."""
        nodes: list[Node] = []
        for node in self._nodes:
            is_whole = node.op == QUANTIZED and len(node.inputs) >= 2
            largest = self._range(node.inputs[0]) if is_whole else None
            weights = self._weights(node.inputs[1]) if largest else None
            if largest and weights is not None:
                x, w = node.inputs[:2]
                nodes += self._quantized_activation(x, largest)
                nodes += self._quantized_weights(w, weights)
                node = node.renamed({x: f"{x}:int8:float", w: f"{w}:int8:float"})
            nodes.append(node)
        if not self._done:
            raise EngineFileError(
                "int8: the calibration has no range for any convolution of this network; "
                "calibrate again with --calibrate CASE"
            )
        others = edited(self._graph, lambda number, part: b"" if number == NODE else None)
        return b"".join([others, *self._new, *(message(NODE, node.packed()) for node in nodes)])

    def _range(self, name: str) -> float | None:
        """Of a tensor, or of those that it was concatenated from."""
        maker = self._makers.get(name)
        if name in self._ranges or maker is None or maker.op != "Concat":
            return self._ranges.get(name)
        parts = [self._ranges.get(part) for part in maker.inputs]
        known = [part for part in parts if part is not None]
        return max(known) if known and len(known) == len(parts) else None

    def _weights(self, name: str) -> NDArray[np.float32] | None:
        """Values of a weight, also of one that is stored as float16 with a Cast."""
        maker = self._makers.get(name)
        source = maker.inputs[0] if maker and maker.op == "Cast" and maker.inputs else name
        tensor = self._tensors.get(source)
        return None if tensor is None else tensor.values

    def _quantized_activation(self, name: str, largest: float) -> Iterator[Node]:
        """Nodes that make `name:int8:float`, if they were not made before."""
        if name in self._done:
            return
        self._scales(name, np.full((), largest, np.float32))
        yield make_node("QuantizeLinear", [name, *_parameters(name)], [f"{name}:int8"])
        yield _dequantized(name)

    def _quantized_weights(self, name: str, values: NDArray[np.float32]) -> Iterator[Node]:
        """The same for weights (C, ...), which become int8 here."""
        if name in self._done:
            return
        others = tuple(range(1, values.ndim))
        scales = self._scales(name, np.abs(values).max(axis=others))
        steps = np.expand_dims(scales, others)
        self._store(f"{name}:int8", INT8, np.rint(values / steps).clip(-LARGEST, LARGEST))
        yield _dequantized(name, axis=0)

    def _scales(self, name: str, largest: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stores scales and zero points of a tensor, and returns the scales."""
        self._done.add(name)
        steps = np.where(largest > 0, largest, LARGEST) / np.float32(LARGEST)
        scales = HALF.rounded(steps.astype(np.float32), name)
        scale, zero = _parameters(name)
        self._store(scale, FLOAT, scales)
        self._store(zero, INT8, np.zeros_like(scales))
        return scales

    def _store(self, name: str, kind: int, values: NDArray[np.float32]) -> None:
        raw = values.astype("<f4" if kind == FLOAT else np.int8).tobytes()
        self._new.append(message(INITIALIZER, make_tensor(name, kind, values.shape, raw)))


def _parameters(name: str) -> tuple[str, str]:
    """Names of a tensor's scale and zero point."""
    return f"{name}:scale", f"{name}:zero"


def _dequantized(name: str, **attributes: int) -> Node:
    inputs = [f"{name}:int8", *_parameters(name)]
    return make_node("DequantizeLinear", inputs, [f"{name}:int8:float"], **attributes)
