import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from fastbts import EngineFileError, EngineSpec
from fastbts.enginefile import read_engine_file, write_engine_file


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.fbts"
    write_engine_file(path, EngineSpec(name="tiny"), {"model.onnx": b"network" * 9, "extra": b"!"}, license="CC0")
    return path


def test_round_trip(good: Path) -> None:
    file = read_engine_file(good)
    assert file.spec == EngineSpec(name="tiny")
    assert bytes(file.payloads["model.onnx"]) == b"network" * 9
    assert file.manifest["license"] == "CC0"
    assert file.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert good.stat().st_size % 64 == 0


def test_a_flipped_bit_in_any_byte_is_refused(good: Path) -> None:
    content = bytearray(good.read_bytes())
    for byte in range(len(content)):
        bit = 1 << byte % 8
        content[byte] ^= bit
        good.write_bytes(content)
        with pytest.raises(EngineFileError):
            read_engine_file(good)
        content[byte] ^= bit


def test_every_truncation_and_appendix_is_refused(good: Path) -> None:
    content = good.read_bytes()
    for size in range(len(content)):
        good.write_bytes(content[:size])
        with pytest.raises(EngineFileError):
            read_engine_file(good)
    good.write_bytes(content + bytes(64))
    with pytest.raises(EngineFileError, match="bytes"):
        read_engine_file(good)


def _forge(path: Path, manifest: object, tail: bytes = bytes(64), version: int = 1) -> Path:
    """A file whose checksums are right but whose manifest lies."""
    raw = json.dumps(manifest).encode()
    head = struct.pack("<8sII32s", b"FASTBTS\n", version, len(raw), hashlib.sha256(raw).digest()) + raw
    path.write_bytes(head + bytes(-len(head) % 64) + tail)
    return path


def _entry(**changes: object) -> dict[str, object]:
    return {"name": "model.onnx", "offset": 0, "size": 64, "sha256": hashlib.sha256(bytes(64)).hexdigest(), **changes}


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ([], "expected a payload 'model.onnx'"),
        ([_entry(offset=64)], "holes and overlaps"),
        ([_entry(), _entry()], "holes and overlaps"),
        ([_entry(size=1 << 40)], "out of bounds"),
        ([_entry(size=-1)], "out of bounds"),
        ([_entry(size=65)], "cut short"),
        ([_entry(size="64")], "expected name, offset, size and sha256"),
        ([_entry(sha256="0" * 64)], "checksum"),
        (["model.onnx"], "expected name, offset, size and sha256"),
    ],
)
def test_lying_payload_lists(tmp_path: Path, payloads: list[object], message: str) -> None:
    with pytest.raises(EngineFileError, match=message):
        read_engine_file(_forge(tmp_path / "x.fbts", {"spec": {}, "payloads": payloads}))


def test_lying_specs(tmp_path: Path, good: Path) -> None:
    spec = read_engine_file(good).manifest["spec"]
    for change, message in [
        ({"window": [100, 176, 144]}, "contradicts"),
        ({"thresholds": [0.5]}, "contradicts"),
        ({"surprise": 1}, "exactly the fields"),
        ({"stride": "16"}, "stride"),
        ({"thresholds": [0.5, 2.0, 0.5]}, "contradicts"),
        ({"regions": ["ET", "TC", "WT"]}, "contradicts"),
        ({"modalities": ["ct", "t1", "t1ce", "t2"]}, "contradicts"),
        ({"min_et_mm3": float("inf")}, "contradicts"),
        ({"min_part_mm3": -1.0}, "contradicts"),
        ({"temperature": 0.0}, "contradicts"),
        ({"temperature": float("nan")}, "contradicts"),
        ({"optional_modalities": ["ct"]}, "contradicts"),
        ({"optional_modalities": ["t1", "t1"]}, "contradicts"),
        ({"optional_modalities": [1]}, "optional_modalities"),
        ({"modalities": []}, "modalities"),
    ]:
        with pytest.raises(EngineFileError, match=message):
            read_engine_file(_forge(tmp_path / "x.fbts", {"spec": {**spec, **change}, "payloads": [_entry()]}))


def test_files_from_before_a_field_existed(tmp_path: Path, good: Path) -> None:
    spec = read_engine_file(good).manifest["spec"]
    for field, default in (("temperature", 1.0), ("min_part_mm3", 0.0), ("optional_modalities", ())):
        old = {k: v for k, v in spec.items() if k != field}
        assert (
            getattr(read_engine_file(_forge(tmp_path / "x.fbts", {"spec": old, "payloads": [_entry()]})).spec, field) == default
        )
    del spec["stride"]
    with pytest.raises(EngineFileError, match="exactly the fields"):
        read_engine_file(_forge(tmp_path / "x.fbts", {"spec": spec, "payloads": [_entry()]}))


def test_external_data_and_deep_nesting_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    write_engine_file(path, EngineSpec(), {"model.onnx": b"...\n\x08location\x12\x09/etc/data"})
    with pytest.raises(EngineFileError, match="data in other files"):
        read_engine_file(path)
    raw = b"[" * 500_000
    path.write_bytes(struct.pack("<8sII32s", b"FASTBTS\n", 1, len(raw), hashlib.sha256(raw).digest()) + raw + bytes(64))
    with pytest.raises(EngineFileError, match="not JSON"):
        read_engine_file(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    with pytest.raises(EngineFileError, match="no such engine file"):
        read_engine_file(path)
    path.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(EngineFileError, match="not an engine file"):
        read_engine_file(path)
    with pytest.raises(EngineFileError, match="format version 2"):
        read_engine_file(_forge(path, {}, version=2))
    path.write_bytes(struct.pack("<8sII32s", b"FASTBTS\n", 1, 1 << 31, bytes(32)))
    with pytest.raises(EngineFileError, match="truncated"):
        read_engine_file(path)


def test_shipped_engine_fits_its_format() -> None:
    from fastbts.engines import default_engine_path

    file = read_engine_file(default_engine_path())
    assert file.spec.modalities == ("flair", "t1", "t1ce", "t2")
    assert {"license", "training", "parity", "data"} <= set(file.manifest)
    assert file.manifest["parity"]["max_logit_difference"] <= 1e-3
    assert np.prod(file.spec.window) > 0


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "none"),
        ({"prompts": {"encoder": "ViT-B-32 laion2b_s34b_b79k", "sha256": "00"}}, "ViT-B-32 laion2b_s34b_b79k"),
        ({"prompts": {"sha256": "00"}}, "not stated"),
        ({"prompts": ["CLIP"]}, "not stated"),
    ],
)
def test_prompts_are_named_by_what_made_them(tmp_path: Path, about: dict[str, object], said: str) -> None:
    write_engine_file(tmp_path / "x.fbts", EngineSpec(), {"model.onnx": b"onnx"}, **about)
    assert read_engine_file(tmp_path / "x.fbts").prompts == said
