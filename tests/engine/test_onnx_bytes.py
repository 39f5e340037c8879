"""Reading an ONNX without the onnx package: bytes decoded by hand, files of `onnx`, damage."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fastbts import EngineFileError
from fastbts.engine.onnx_bytes import (
    call_body,
    drop_bodies,
    drop_default,
    read_default,
    read_metadata,
)

NAME_IS_HI = (
    b"\x0a\x04name\x12\x02hi"  # key (field 1): 4 bytes "name"; value (field 2): 2 bytes "hi"
)


def model() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "text")
    halves = numpy_helper.from_array(np.zeros(300, np.float16), "halves")
    text = helper.make_tensor_value_info("text", 1, [2, 3])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["text"], ["logits"])], "g", [text], [text], [halves, values]
    )
    made = helper.make_model(graph)
    helper.set_model_props(made, {"name": "läufer", "empty": ""})
    return made


def test_by_hand() -> None:
    assert read_metadata(b"\x72\x0a" + NAME_IS_HI[:10]) == {"name": "hi"}  # field 14, 10 bytes
    assert read_metadata(b"") == {}


def test_agrees_with_onnx() -> None:
    content = model().SerializeToString()
    assert read_metadata(content) == {"name": "läufer", "empty": ""}
    np.testing.assert_array_equal(read_default(content, "text"), [[0, 1, 2], [3, 4, 5]])
    assert read_default(content, "prompt") is None


def test_dropping_a_default_changes_nothing_else() -> None:
    wanted = model()
    del wanted.graph.initializer[1]
    dropped = drop_default(model().SerializeToString(), "text")
    assert onnx.load_from_string(dropped) == wanted
    assert drop_default(dropped, "text") == dropped


def test_calling_a_body_changes_the_domain_of_those_nodes_alone() -> None:
    made = model()
    made.graph.node.extend(
        [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Abs", ["b"], ["c"], domain="x")]
    )
    assert call_body(made.SerializeToString(), "Relu", "own") == made.SerializeToString(), (
        "there is no body"
    )
    made.functions.append(
        helper.make_function("own", "Relu", ["a"], ["b"], [], [helper.make_opsetid("", 20)])
    )
    changed = onnx.load_from_string(call_body(made.SerializeToString(), "Relu", "own"))
    assert [node.domain for node in changed.graph.node if node.op_type in ("Relu", "Abs")] == [
        "own",
        "x",
    ]
    for node in changed.graph.node:
        if node.op_type == "Relu":
            node.ClearField("domain")
    assert changed == made


def test_dropping_bodies_leaves_the_others() -> None:
    made = model()
    for name in ("one", "other", "two"):
        node, opset = helper.make_node("Identity", ["x"], ["y"]), helper.make_opsetid("", 20)
        made.functions.append(helper.make_function("ours", name, ["x"], ["y"], [node], [opset]))
    dropped = drop_bodies(made.SerializeToString(), ["one", "two"])
    del made.functions[2], made.functions[0]
    assert onnx.load_from_string(dropped) == made
    assert drop_bodies(dropped, ["one", "two"]) == dropped


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(EngineFileError, match="'halves': expected float32"):
        read_default(model().SerializeToString(), "halves")


@pytest.mark.parametrize(
    "content", [b"not an onnx", b"\x72\x0a\x0a", b"\x72\xff\xff", b"\xff" * 12, b"\x0b"]
)
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(EngineFileError, match="not an ONNX file"):
        read_metadata(content)


def test_truncated_files_are_refused_or_lack_the_tensor() -> None:
    content = model().SerializeToString()
    for size in range(len(content)):
        try:
            found = read_default(content[:size], "text")
        except EngineFileError:
            continue
        assert found is None or found.shape == (2, 3)
