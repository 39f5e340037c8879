"""Damaged engine files are refused, or parsed as what they say; the runtimes never see them."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbts import EngineFileError
from fastbts.engine.file import parse_engine_file
from fastbts.engine.onnx_bytes import drop_default, read_default, read_metadata
from tests.budget import examples, only
from tests.conftest import write_voxel_engine
from tests.guards.test_fuzz_images import Edit, edits

pytestmark = pytest.mark.guard
read_text, drop_text = partial(read_default, name="text"), partial(drop_default, name="text")
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts").read_bytes()


@examples(300, 20_000)
@given(changes=st.lists(edits, min_size=1, max_size=4))
def test_damaged_bytes(file: bytes, changes: list[Edit]) -> None:
    content = file
    for change in changes:
        content = change(content)
    with only(EngineFileError):
        parsed = parse_engine_file(content, "damaged.fbts")
        assert parsed.spec.name == "voxel"  # only what no checksum covers has changed


@examples(200, 10_000)
@given(data=st.data())
def test_any_manifest(file: bytes, data: st.DataObject) -> None:
    """The manifest says other things, of any type, under right checksums."""
    content, manifest = _manifest(file)
    for _ in range(data.draw(st.integers(1, 3))):
        where: Any = manifest
        while isinstance(where, dict) and where:
            holder, key = where, data.draw(st.sampled_from(sorted(where)))
            where = where[key] if data.draw(st.booleans()) else None
        holder[key] = data.draw(json_values)
    with only(EngineFileError):
        parse_engine_file(_with_manifest(content, manifest), "odd.fbts")


@examples(200, 10_000)
@given(changes=st.lists(edits, min_size=1, max_size=4))
def test_damaged_network(file: bytes, changes: list[Edit]) -> None:
    """Our own reader of ONNX meets any bytes: the checksum is right, or nobody has checked it."""
    onnx = bytes(parse_engine_file(file, "voxel.fbts").payloads["model.onnx"])
    for change in changes:
        onnx = change(onnx)
    for read in (read_metadata, read_text, drop_text):
        with only(EngineFileError):
            read(onnx)


def _manifest(file: bytes) -> tuple[bytes, dict[str, Any]]:
    """The payloads with their padding, and the manifest; see fastbts/engine/FORMAT.md."""
    size = int.from_bytes(file[12:16], "little")
    return file[-(-(48 + size) // 64) * 64 :], json.loads(file[48 : 48 + size])


def _with_manifest(payloads: bytes, manifest: dict[str, Any]) -> bytes:
    text = json.dumps(manifest).encode()
    head = b"FASTBTS\n" + (1).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    head += hashlib.sha256(text).digest() + text
    return head.ljust(-(-len(head) // 64) * 64, b"\0") + payloads
