"""Checks the graph of an ONNX before a runtime loads it: inputs, outputs, and what could never end.

Runtimes compute while they load a network: a loop of 2^62 steps keeps them busy for ever, and
bodies that call each other fill the memory. Networks of fastbts need neither.

Field numbers: onnx.proto3 of ONNX 1.21 (as in `onnx_bytes`).
"""

from __future__ import annotations

from fastbts.engine.onnx_bytes import FLOAT, FUNCTION, GRAPH, NODE, each, fields, text
from fastbts.errors import EngineFileError
from fastbts.spec import EngineSpec

INPUT, OUTPUT = 11, 12  # of GraphProto
FUNCTION_NAME, FUNCTION_NODE, FUNCTION_DOMAIN = 1, 7, 10  # of FunctionProto
OP_TYPE, ATTRIBUTE, DOMAIN = 4, 5, 7  # of NodeProto
SUBGRAPH, SUBGRAPHS = 6, 11  # of AttributeProto
NAME, TYPE = 1, 2  # of ValueInfoProto
TENSOR, ELEMENT, SHAPE = 1, 1, 2  # of TypeProto, TypeProto.Tensor
DIM, SIZE = 1, 1  # of TensorShapeProto, its dimension
STANDARD = ("", "ai.onnx")
MAX_NODES, MAX_DEPTH = 100_000, 16
"""Nodes with all bodies written out, and bodies inside bodies."""

Operator = tuple[str, str]
"""Domain and type of a node."""


def check_graph(onnx_bytes: bytes | memoryview, spec: EngineSpec) -> None:
    """Checks the inputs, outputs and operators of a network.

    Raises:
        EngineFileError: The bytes are no ONNX, or it is no network that fastbts runs.
    """
    graphs = list(each(onnx_bytes, GRAPH))
    bodies = dict(_body(function) for function in each(onnx_bytes, FUNCTION))
    nodes = [_operator(node) for graph in graphs for node in each(graph, NODE)]
    for domain, kind in [*nodes, *(call for body in bodies.values() for call in body)]:
        if domain not in STANDARD and (domain, kind) not in bodies:
            raise EngineFileError(
                f"node {kind!r} of domain {domain!r}: expected standard ONNX, or a body for it in "
                "the file; export it again"
            )
    if _n_nodes(nodes, bodies, {}) > MAX_NODES:
        raise EngineFileError(
            f"more than {MAX_NODES} nodes with all bodies written out; export a smaller network"
        )
    _check_ends(graphs, spec)


def _body(function: memoryview) -> tuple[Operator, list[Operator]]:
    found = dict(fields(function))
    name = text(found.get(FUNCTION_DOMAIN, b"")), text(found.get(FUNCTION_NAME, b""))
    return name, [_operator(node) for node in each(function, FUNCTION_NODE)]


def _operator(node: memoryview) -> Operator:
    found = dict(fields(node))
    domain, kind = text(found.get(DOMAIN, b"")), text(found.get(OP_TYPE, b""))
    for attribute in each(node, ATTRIBUTE):
        if {SUBGRAPH, SUBGRAPHS} & dict(fields(attribute)).keys():
            raise EngineFileError(
                f"node {kind!r} has a graph of its own; expected a network without loops and "
                "branches (Loop, If, Scan); export it without them"
            )
    return domain, kind


def _n_nodes(
    nodes: list[Operator],
    bodies: dict[Operator, list[Operator]],
    known: dict[Operator, int],
    depth: int = 0,
) -> int:
    """Number of nodes with each body written out; `known` has the bodies counted before."""
    if depth > MAX_DEPTH:
        raise EngineFileError(
            f"bodies of nodes call each other more than {MAX_DEPTH} deep; export it without"
        )
    for name in set(nodes) & bodies.keys() - known.keys():
        known[name] = _n_nodes(bodies[name], bodies, known, depth + 1)
    return sum(1 + known.get(name, 0) for name in nodes)


def _check_ends(graphs: list[memoryview], spec: EngineSpec) -> None:
    inputs, outputs = (
        dict(_end(value) for graph in graphs for value in each(graph, field))
        for field in (INPUT, OUTPUT)
    )
    if set(inputs) - {"text"} != {"volume"} or set(outputs) != {"logits"}:
        raise EngineFileError(
            f"the network has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}; "
            "expected volume, maybe text, and logits; export it again"
        )
    wanted = {"volume": len(spec.modalities), "logits": len(spec.regions)}
    for name, (element, shape) in {"volume": inputs["volume"], **outputs}.items():
        if element != FLOAT or not _fits(shape, wanted[name]):
            raise EngineFileError(
                f"{name} of the network: expected float32 (B, {wanted[name]}, D, H, W) with any B, "
                f"D, H, W, got element type {element}, shape {shape}; export it again"
            )


def _fits(shape: list[int | None], n_channels: int) -> bool:
    """Whether a shape, None for a free size, may be (1 or any, n_channels, any, any, any)."""
    wanted = ((None, 1), (None, n_channels), (None,), (None,), (None,))
    return not shape or (
        len(shape) == 5 and all(n in sizes for n, sizes in zip(shape, wanted, strict=True))
    )


def _end(value: memoryview) -> tuple[str, tuple[int, list[int | None]]]:
    """Name of an input or output, its element type, and its shape; [] where none is stated."""
    name, element, shape = "", 0, list[int | None]()
    for field, content in fields(value):
        name = text(content) if field == NAME else name
        for tensor in each(content, TENSOR) if field == TYPE else ():
            for part, inner in fields(tensor):
                element = inner if part == ELEMENT and isinstance(inner, int) else element
                dims = each(inner, DIM) if part == SHAPE else ()
                shape += [_size(dim) for dim in dims]
    return name, (element, shape)


def _size(dim: memoryview) -> int | None:
    """`dim_value`; None where it is free."""
    size = dict(fields(dim)).get(SIZE)
    return size if isinstance(size, int) else None
