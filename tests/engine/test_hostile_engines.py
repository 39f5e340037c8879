"""Damaged and hostile engine files are refused before any runtime is used."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastbts import EngineFileError, EngineSpec, load_engine
from fastbts.engine.file import parse_engine_file, write_engine_file
from tests.conftest import unknown_node

RUNTIMES = (
    "openvino",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "onnx",
    "nncf",
)
N_FLIPS, N_TRUNCATIONS = 10_000, 1_000


class _Tripwire(ModuleType):
    """A runtime that must not be touched."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{self.__name__}.{name} was used")


@pytest.fixture
def tripwires(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, _Tripwire(name))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A small engine file with two payloads, neither of a size that needs no padding."""
    path, rng = tmp_path / "good.fbts", np.random.default_rng(0)
    # onnx.proto: ir_version 10, a doc_string of 3000 bytes; readers merge what follows.
    onnx = b"\x08\x0a\x32\xb8\x17" + rng.bytes(3000) + unknown_node()
    write_engine_file(
        path, EngineSpec(name="tiny"), {"model.onnx": onnx, "extra": rng.bytes(77)}, license="CC0"
    )
    return path


def _refused(content: bytes) -> None:
    with pytest.raises(EngineFileError):
        parse_engine_file(content, "hostile.fbts")


def test_the_tripwires_work(good: Path, tripwires: None) -> None:
    with pytest.raises(AssertionError, match="was used"):
        load_engine(good)


def test_any_flipped_bit_is_refused_before_a_runtime_is_touched(
    good: Path, tripwires: None
) -> None:
    content, rng = bytearray(good.read_bytes()), np.random.default_rng(1)
    assert parse_engine_file(bytes(content), "good.fbts").spec.name == "tiny"
    for position in rng.choice(8 * len(content), N_FLIPS, replace=False).tolist():
        content[position // 8] ^= 1 << position % 8
        _refused(bytes(content))
        content[position // 8] ^= 1 << position % 8


def test_any_truncation_is_refused_before_a_runtime_is_touched(good: Path, tripwires: None) -> None:
    content = good.read_bytes()
    for size in (
        np.random.default_rng(2).choice(len(content), N_TRUNCATIONS, replace=False).tolist()
    ):
        _refused(content[:size])


def test_damaged_file_is_refused_by_the_loader_too(good: Path, tripwires: None) -> None:
    content = bytearray(good.read_bytes())
    for position in range(0, len(content), 97):  # damage in every part of the file
        content[position] ^= 0x10
        good.write_bytes(content)
        with pytest.raises(EngineFileError, match=re.escape(str(good))):
            load_engine(good)
        content[position] ^= 0x10


# An entry of external_data begins with field 1, "location", of 8 bytes; protobuf readers accept
# longer forms of that length.
@pytest.mark.parametrize(
    "entry",
    [
        b"\n\x08location",
        b"\n\x88\x00location",
        b"\n\x88\x80\x80\x00location",
        b"\x8a\x00\x08location",
    ],
)
def test_external_data_is_refused_however_its_length_is_written(
    tmp_path: Path, tripwires: None, entry: bytes
) -> None:
    path = tmp_path / "x.fbts"
    write_engine_file(path, EngineSpec(), {"model.onnx": b"..." + entry + b"\x12\x09/etc/data"})
    with pytest.raises(EngineFileError, match="data in other files"):
        load_engine(path)


def test_word_that_ends_in_location_is_not_external_data(tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    write_engine_file(path, EngineSpec(), {"model.onnx": b"\n\x0a/relocation"})
    assert parse_engine_file(path.read_bytes(), path).payloads
