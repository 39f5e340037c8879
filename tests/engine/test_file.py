import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from fastbts import EngineFileError, EngineSpec
from fastbts.engine.file import (
    MAX_MANIFEST_BYTES,
    parse_engine_file,
    read_engine_file,
    write_engine_file,
)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.fbts"
    write_engine_file(
        path, EngineSpec(name="tiny"), {"model.onnx": b"network" * 9, "extra": b"!"}, license="CC0"
    )
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
        with pytest.raises(EngineFileError):
            parse_engine_file(bytes(content), good)
        content[byte] ^= bit


def test_every_truncation_and_extension_is_refused(good: Path) -> None:
    content = good.read_bytes()
    for size in range(len(content)):
        with pytest.raises(EngineFileError):
            parse_engine_file(content[:size], good)
    with pytest.raises(EngineFileError, match="bytes"):
        parse_engine_file(content + bytes(64), good)


def _forge(path: Path, manifest: object, tail: bytes = bytes(64), version: int = 1) -> Path:
    """A file with valid checksums and a forged manifest."""
    raw = json.dumps(manifest).encode()
    header = (
        struct.pack("<8sII32s", b"FASTBTS\n", version, len(raw), hashlib.sha256(raw).digest()) + raw
    )
    path.write_bytes(header + bytes(-len(header) % 64) + tail)
    return path


def _entry(**changes: object) -> dict[str, object]:
    return {
        "name": "model.onnx",
        "offset": 0,
        "size": 64,
        "sha256": hashlib.sha256(bytes(64)).hexdigest(),
        **changes,
    }


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ([], "expected a payload 'model.onnx'"),
        ([_entry(offset=64)], "holes and overlaps"),
        ([_entry(), _entry()], "holes and overlaps"),
        ([_entry(size=1 << 40)], "out of bounds"),
        ([_entry(size=-1)], "out of bounds"),
        ([_entry(size=65)], "truncated"),
        ([_entry(size=True)], "expected name, offset, size and sha256"),
        ([_entry(size="64")], "expected name, offset, size and sha256"),
        ([_entry(sha256="0" * 64)], "checksum"),
        (["model.onnx"], "expected name, offset, size and sha256"),
    ],
)
def test_forged_payload_lists_are_refused(
    tmp_path: Path, payloads: list[object], message: str
) -> None:
    with pytest.raises(EngineFileError, match=message):
        read_engine_file(_forge(tmp_path / "x.fbts", {"spec": {}, "payloads": payloads}))


def test_forged_specs_are_refused(tmp_path: Path, good: Path) -> None:
    spec = read_engine_file(good).manifest["spec"]
    for change, message in [
        ({"window": [100, 176, 144]}, "contradicts"),
        ({"window": [16, 176, 144]}, "contradicts"),
        ({"thresholds": [0.5]}, "contradicts"),
        ({"surprise": 1}, "exactly the fields"),
        ({"stride": "16"}, "stride"),
        ({"thresholds": [0.5, 2.0, 0.5]}, "contradicts"),
        ({"regions": ["../WT", "TC", "ET"]}, "contradicts"),
        ({"labels": [[1], [2]]}, "contradicts"),
        ({"labels": [[1], [2], [256]]}, "contradicts"),
        ({"labels": [[1], [2], [-1]]}, "contradicts"),
        ({"labels": [[1], [], [2]]}, "labels"),
        ({"labels": [1, 2, 4]}, "labels"),
        ({"labels": [[1], [2], [3]], "min_et_mm3": 5.0}, "contradicts"),
        ({"modalities": ["t1", "t1", "t1ce", "t2"]}, "contradicts"),
        ({"modalities": ["", "t1", "t1ce", "t2"]}, "contradicts"),
        ({"modalities": [*"abcdefghi"]}, "contradicts"),
        ({"min_et_mm3": float("inf")}, "contradicts"),
        ({"min_part_mm3": -1.0}, "contradicts"),
        ({"temperatures": [1.0, 1.0, 0.0]}, "contradicts"),
        ({"temperatures": [float("nan"), 1.0, 1.0]}, "contradicts"),
        ({"temperatures": [1.0]}, "contradicts"),
        ({"optional_modalities": ["ct"]}, "contradicts"),
        ({"optional_modalities": ["t1", "t1"]}, "contradicts"),
        ({"optional_modalities": [1]}, "optional_modalities"),
        ({"modalities": []}, "modalities"),
        ({"stride": 1 << 20, "window": [1 << 20] * 3}, "contradicts"),
    ]:
        with pytest.raises(EngineFileError, match=message):
            read_engine_file(
                _forge(tmp_path / "x.fbts", {"spec": {**spec, **change}, "payloads": [_entry()]})
            )


def test_older_specs_have_no_labels(tmp_path: Path, good: Path) -> None:
    spec = read_engine_file(good).manifest["spec"]
    del spec["labels"]

    def read(**changes: list[object]) -> EngineSpec:
        forged = {"spec": {**spec, **changes}, "payloads": [_entry()]}
        return read_engine_file(_forge(tmp_path / "x.fbts", forged)).spec

    assert read().is_glioma
    brain = read(regions=["brain"], thresholds=[0.5], temperatures=[1.0])
    assert brain.region_labels == {"brain": (1,)}
    with pytest.raises(EngineFileError, match=r"no labels of ET, TC, WT; .* export the engine"):
        read(regions=["ET", "TC", "WT"])


@pytest.mark.parametrize(
    ("section", "value"), [("training", []), ("parity", "fine"), ("license", {}), ("data", 28)]
)
def test_sections_of_a_wrong_type_are_refused(good: Path, section: str, value: object) -> None:
    forged = {**read_engine_file(good).manifest, section: value}
    with pytest.raises(EngineFileError, match=f"sections of a wrong type: {section}"):
        read_engine_file(_forge(good, forged))


def test_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    huge = {"spec": {}, "payloads": [_entry()], "padding": "x" * MAX_MANIFEST_BYTES}
    with pytest.raises(EngineFileError, match=f"at most {MAX_MANIFEST_BYTES} are allowed"):
        read_engine_file(_forge(tmp_path / "x.fbts", huge))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    raw = b"[" * 500_000
    path.write_bytes(
        struct.pack("<8sII32s", b"FASTBTS\n", 1, len(raw), hashlib.sha256(raw).digest())
        + raw
        + bytes(64)
    )
    with pytest.raises(EngineFileError, match="not JSON"):
        read_engine_file(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    with pytest.raises(EngineFileError, match="no such engine file"):
        read_engine_file(path)
    path.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(EngineFileError, match="not an engine file"):
        read_engine_file(path)
    with pytest.raises(EngineFileError, match="format version 2"):
        read_engine_file(_forge(path, {}, version=2))
    path.write_bytes(struct.pack("<8sII32s", b"FASTBTS\n", 1, 1 << 19, bytes(32)))
    with pytest.raises(EngineFileError, match="truncated"):
        read_engine_file(path)


def test_shipped_engine_fits_its_format() -> None:
    from fastbts.engine.load import default_engine_path

    file = read_engine_file(default_engine_path())
    assert file.spec.modalities == ("flair", "t1", "t1ce", "t2")
    assert {"license", "training", "parity", "data"} <= set(file.manifest)
    parity = file.manifest["parity"]
    assert parity["max_logit_difference"] <= 1e-3
    assert parity["label_agreement"] >= 0.99999
    assert np.prod(file.spec.window) > 0


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, "none"),
        (
            {"prompts": {"encoder": "ViT-B-32 laion2b_s34b_b79k", "sha256": "00"}},
            "ViT-B-32 laion2b_s34b_b79k",
        ),
        ({"prompts": {"sha256": "00"}}, "not stated"),
    ],
)
def test_source_of_the_prompts_is_stated(
    tmp_path: Path, about: dict[str, object], expected: str
) -> None:
    write_engine_file(tmp_path / "x.fbts", EngineSpec(), {"model.onnx": b"onnx"}, **about)
    assert read_engine_file(tmp_path / "x.fbts").prompts == expected
