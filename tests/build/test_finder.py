"""Putting a finder into an engine file: what is kept, and that builds and signatures go on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fastbts import EngineFileError, OutputError, Segmenter, SegmenterOptions
from fastbts.build.engine import build_engine
from fastbts.build.finder import add_finder
from fastbts.engine.file import EngineFile, pack_engine, read_engine_file
from fastbts.engine.finder import FINDER, finder_of
from fastbts.engine.signing import check_signature, generate_keys, sign_engine
from tests.conftest import write_voxel_engine, write_voxel_finder


@pytest.fixture
def finder(tmp_path: Path) -> Path:
    """A finder with a training record."""
    file = read_engine_file(write_voxel_finder(tmp_path / "plain-finder.fbts"))
    path = tmp_path / "finder.fbts"
    path.write_bytes(pack_engine(file.spec, file.payloads, training={"steps": 7}))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine with a section and a payload of its own."""
    file = read_engine_file(write_voxel_engine(tmp_path / "plain.fbts"))
    path, payloads = tmp_path / "engine.fbts", {**file.payloads, "extra": b"!"}
    path.write_bytes(pack_engine(file.spec, payloads, license="CC0"))
    return path


def found(path: Path) -> EngineFile:
    finder = finder_of(read_engine_file(path))
    assert finder is not None
    return finder


def test_all_else_stays_as_it_is(engine: Path, finder: Path, tmp_path: Path) -> None:
    about = add_finder(engine, tmp_path / "out.fbts", finder)
    sha256 = hashlib.sha256(finder.read_bytes()).hexdigest()
    assert about == {"name": "voxel-finder", "sha256": sha256, "training": {"steps": 7}}
    before, after = read_engine_file(engine), read_engine_file(tmp_path / "out.fbts")
    assert after.manifest["finder"] == about
    assert after.manifest["license"] == "CC0"
    assert after.spec == before.spec
    assert {n: bytes(c) for n, c in after.payloads.items()} == {
        **{n: bytes(c) for n, c in before.payloads.items()},
        FINDER: finder.read_bytes(),
    }
    assert found(tmp_path / "out.fbts").sha256 == sha256


def test_a_finder_is_replaced_in_place(engine: Path, finder: Path, tmp_path: Path) -> None:
    add_finder(engine, engine, finder)
    other = write_voxel_finder(tmp_path / "other.fbts", name="other")
    add_finder(engine, engine, other)
    assert found(engine).spec.name == "other"
    assert "training" not in read_engine_file(engine).manifest["finder"]
    with pytest.raises(OutputError):
        add_finder(engine, finder, finder)


def test_an_engine_with_a_finder_is_no_finder(engine: Path, finder: Path, tmp_path: Path) -> None:
    nested = read_engine_file(finder)
    both = tmp_path / "both.fbts"
    both.write_bytes(pack_engine(nested.spec, {**nested.payloads, FINDER: finder.read_bytes()}))
    with pytest.raises(EngineFileError, match=r"both\.fbts: has a finder itself"):
        add_finder(engine, tmp_path / "out.fbts", both)
    with pytest.raises(EngineFileError, match=r"plain\.fbts: does not fit voxel"):
        add_finder(engine, tmp_path / "out.fbts", tmp_path / "plain.fbts")


@pytest.mark.usefixtures("small_phantom")
def test_a_build_keeps_the_finder(engine: Path, finder: Path, tmp_path: Path) -> None:
    add_finder(engine, engine, finder)
    build_engine(engine, tmp_path / "built.fbts")
    about = read_engine_file(tmp_path / "built.fbts").manifest
    assert about["finder"]["name"] == "voxel-finder"
    assert about["build"]["precision"] == "fp32"
    assert found(tmp_path / "built.fbts").sha256 == read_engine_file(finder).sha256
    Segmenter(tmp_path / "built.fbts", options=SegmenterOptions(focus=True)).close()


def test_a_signature_includes_the_finder(engine: Path, finder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = tmp_path / "key"
    public = generate_keys(key)
    add_finder(engine, engine, finder)
    sign_engine(engine, key, engine)
    check_signature(read_engine_file(engine), public)
    assert found(engine).spec.name == "voxel-finder"
    add_finder(engine, engine, finder)
    assert "signature" not in read_engine_file(engine).manifest, "of another content"
