"""Networks that no runtime should see: loops, unknown operators, endless bodies, wrong ends."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from fastbts import EngineFileError, EngineSpec, load_engine
from fastbts.build.engine import build_engine
from fastbts.engine.backends import BACKENDS
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.engine.graph import MAX_NODES, check_graph
from fastbts.engine.load import default_engine_path

SPEC = EngineSpec(name="x", stride=8, window=(16, 24, 16))
ON_CPU = [name for name, row in BACKENDS.items() if "cpu" in row.devices]
Shape = tuple[int | str, ...]
VOLUME: Shape = ("b", 4, "d", "h", "w")
LOGITS: Shape = ("b", 3, "d", "h", "w")


def value(name: str, shape: Shape | None, element: int = TensorProto.FLOAT) -> object:
    return helper.make_tensor_value_info(name, element, shape)


def model(nodes: list[NodeProto], ends: tuple[list[object], list[object]] | None = None) -> bytes:
    inputs, outputs = ends or ([value("volume", VOLUME)], [value("logits", LOGITS)])
    made = made_model(helper.make_graph(nodes, "g", inputs, outputs))
    return made.SerializeToString()


def made_model(graph: GraphProto) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(kind: str, domain: str = "", **attributes: object) -> NodeProto:
    return helper.make_node(kind, ["volume"], ["logits"], domain=domain, **attributes)


def body(name: str, *calls: str) -> object:
    nodes = [helper.make_node(call, ["x"], ["y"], domain="own") for call in calls]
    return helper.make_function("own", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 20)])


def endless_loop() -> NodeProto:
    """2^62 steps of nothing."""
    flag = [value(name, (), TensorProto.BOOL) for name in ("go", "on")]
    step = helper.make_tensor_value_info("step", TensorProto.INT64, ())
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])], "i", [step, flag[0]], flag[1:]
    )
    return helper.make_node("Loop", ["steps", ""], [], body=inner)


def test_shipped_network_is_accepted() -> None:
    file = read_engine_file(default_engine_path())
    began = time.perf_counter()
    check_graph(file.payloads["model.onnx"], file.spec)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kind", ["Loop", "If", "Scan", "SequenceMap", "Own"])
def test_nodes_with_graphs_are_refused_before_a_runtime(
    tmp_path: Path, backend: str, kind: str
) -> None:
    inner = helper.make_graph([], "inner", [], [])
    path = tmp_path / "loop.fbts"
    write_engine_file(path, SPEC, {"model.onnx": model([node(kind, body=inner)])})
    message = rf"loop\.fbts: node '{kind}' has a graph of its own; expected a network without loops"
    with pytest.raises(EngineFileError, match=message):
        load_engine(path, backend=backend)
    with pytest.raises(EngineFileError, match=message):
        build_engine(path, tmp_path / "out.fbts", backend=backend)


@pytest.mark.parametrize("place", ["graph", "list of graphs", "body", "second graph"])
def test_a_loop_is_found_wherever_it_is(place: str) -> None:
    loop = endless_loop()
    if place == "list of graphs":
        loop = node("Own", graphs=[loop.attribute[0].g])
    made = ModelProto.FromString(model([node("Identity")] if place == "body" else [loop]))
    content = made.SerializeToString()
    if place == "body":
        function = helper.make_function("own", "F", ["volume"], ["logits"], [loop], [])
        made.functions.append(function)
        content = made.SerializeToString()
    if place == "second graph":  # readers of protobuf merge the two
        content = model([node("Identity")]) + made.SerializeToString()
    with pytest.raises(EngineFileError, match="has a graph of its own"):
        check_graph(content, SPEC)


def test_unknown_operators_are_refused() -> None:
    for domain in ("com.microsoft", "fastbts"):
        with pytest.raises(EngineFileError, match=f"node 'Gelu' of domain '{domain}': expected"):
            check_graph(model([node("Gelu", domain)]), SPEC)
    check_graph(model([node("Gelu", "ai.onnx")]), SPEC)


def test_operators_inside_bodies_are_checked_too() -> None:
    made = ModelProto.FromString(model([node("F", "own")]))
    made.functions.append(body("F", "G"))
    with pytest.raises(EngineFileError, match="node 'G' of domain 'own'"):
        check_graph(made.SerializeToString(), SPEC)
    made.functions.append(body("G"))
    check_graph(made.SerializeToString(), SPEC)


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (
            {f"F{n}": [f"F{n + 1}"] * 10 for n in range(9)} | {"F9": []},
            f"more than {MAX_NODES} nodes",
        ),
        ({f"F{n}": [f"F{n + 1}"] for n in range(99)} | {"F99": []}, "call each other more than 16"),
        ({"F0": ["F1"], "F1": ["F0"]}, "call each other more than 16 deep"),
    ],
)
def test_bodies_that_explode_are_refused(calls: dict[str, list[str]], message: str) -> None:
    made = ModelProto.FromString(model([node("F0", "own")]))
    made.functions.extend(body(name, *called) for name, called in calls.items())
    began = time.perf_counter()
    with pytest.raises(EngineFileError, match=message):
        check_graph(made.SerializeToString(), SPEC)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"image": VOLUME}, {"logits": LOGITS}, "has the inputs image and the outputs logits; exp"),
        ({"volume": VOLUME, "age": (1,)}, {"logits": LOGITS}, "has the inputs volume, age and"),
        ({"volume": VOLUME}, {"logits": LOGITS, "more": LOGITS}, "the outputs logits, more"),
        ({"volume": VOLUME}, {}, "and the outputs ; expected volume, maybe text, and logits"),
        ({"volume": ("b", 3, "d", "h", "w")}, {"logits": LOGITS}, r"volume .* \(B, 4, D, H, W\)"),
        ({"volume": VOLUME}, {"logits": ("b", 4, "d", "h", "w")}, r"logits .* \(B, 3, D, H, W\)"),
        ({"volume": VOLUME}, {"logits": ("b", 3, "d", "h")}, "logits of the network: expected"),
        ({"volume": ("b", 4, 64, 64, 64)}, {"logits": LOGITS}, r"shape \[None, 4, 64, 64, 64\]"),
        ({"volume": VOLUME}, {"logits": (2, 3, "d", "h", "w")}, "logits of the network"),
    ],
)
def test_wrong_ends_are_refused(
    inputs: dict[str, Shape], outputs: dict[str, Shape], message: str
) -> None:
    ends = tuple([value(name, shape) for name, shape in end.items()] for end in (inputs, outputs))
    with pytest.raises(EngineFileError, match=message):
        check_graph(model([node("Identity")], ends), SPEC)  # type: ignore[arg-type]


def test_other_element_types_are_refused() -> None:
    ends = [value("volume", VOLUME)], [value("logits", LOGITS, TensorProto.FLOAT16)]
    with pytest.raises(EngineFileError, match=r"expected float32 .*, got element type 10, shape"):
        check_graph(model([node("Cast", to=10)], ends), SPEC)


def test_a_shape_that_is_not_stated_is_accepted() -> None:
    check_graph(
        model([node("Identity")], ([value("volume", VOLUME)], [value("logits", None)])), SPEC
    )


@pytest.mark.parametrize("backend", ON_CPU)
def test_logits_of_another_shape_are_an_error_when_they_are_computed(
    tmp_path: Path, backend: str
) -> None:
    """The file states the right shape; the network halves the last axis, or repeats the classes."""
    from fastbts import DeviceError

    for kind, shape in (("MaxPool", (1, 1, 1)), ("MaxPool", (2, 2, 2))):
        nodes = [node(kind, kernel_shape=shape, strides=shape)]
        ends = [value("volume", VOLUME)], [value("logits", None)]
        path = tmp_path / "x.fbts"
        write_engine_file(path, SPEC, {"model.onnx": model(nodes, ends)})
        with pytest.raises((DeviceError, EngineFileError)):
            load_engine(path, backend=backend).infer(np.ones((1, 4, 32, 32, 32), np.float32))
