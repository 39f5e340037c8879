"""The finder in an engine file: what is refused, and what it is loaded with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastbts import EngineFileError, OptionsError, Segmenter, SegmenterOptions
from fastbts.build.finder import add_finder
from fastbts.engine import finder as finders
from fastbts.engine.file import pack_engine, read_engine_file
from fastbts.engine.finder import FINDER, finder_of, open_finder
from tests.conftest import VoxelEngine, write_voxel_engine, write_voxel_finder


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_voxel_engine(tmp_path / "engine.fbts")


def nested(engine: Path, content: bytes) -> Path:
    """The engine with these bytes as its finder, unchecked."""
    file = read_engine_file(engine)
    target = engine.with_name("nested.fbts")
    target.write_bytes(pack_engine(file.spec, {**file.payloads, FINDER: content}))
    return target


def test_an_engine_has_no_finder_or_one(engine: Path, tmp_path: Path) -> None:
    assert finder_of(read_engine_file(engine)) is None
    small = write_voxel_finder(tmp_path / "finder.fbts")
    finder = finder_of(read_engine_file(nested(engine, small.read_bytes())))
    assert finder is not None
    assert finder.spec == read_engine_file(small).spec
    assert finder.sha256 == read_engine_file(small).sha256
    assert finder.path.endswith("nested.fbts: finder.fbts")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"spacing_mm": 1.75}, r"spacing_mm 2\.0, got 1\.75"),
        (
            {"modalities": ("a", "b", "c", "d")},
            r"modalities \('flair', .* got \('a', 'b', 'c', 'd'\)",
        ),
        ({"percentiles": (1.0, 99.0)}, r"percentiles \(0\.1, 99\.9\), got \(1\.0, 99\.0\)"),
        ({"labels": ((1,),)}, r"labels of its one region \[\[1, 2, 4\]\], got \[\[1\]\]"),
    ],
)
def test_a_finder_that_does_not_fit_is_refused(
    engine: Path, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    small = write_voxel_finder(tmp_path / "finder.fbts", **spec)
    file = read_engine_file(nested(engine, small.read_bytes()))
    expected = (
        rf"nested\.fbts: finder\.fbts: does not fit voxel: expected {message}; train a finder"
    )
    with pytest.raises(EngineFileError, match=expected):
        finder_of(file)
    with pytest.raises(EngineFileError, match=f"does not fit voxel: expected {message}"):
        add_finder(engine, tmp_path / "out.fbts", small)
    assert not (tmp_path / "out.fbts").exists()


def test_an_engine_of_an_odd_stride_has_no_finder(tmp_path: Path) -> None:
    engine = write_voxel_engine(tmp_path / "odd.fbts", stride=7, window=(14, 21, 14))
    small = write_voxel_finder(tmp_path / "finder.fbts")
    with pytest.raises(EngineFileError, match="of voxel a stride that is a multiple of 2, got 1"):
        add_finder(engine, tmp_path / "out.fbts", small)


def test_a_finder_in_a_finder_is_refused(engine: Path, tmp_path: Path) -> None:
    small = write_voxel_finder(tmp_path / "finder.fbts")
    inner = read_engine_file(small)
    twice = pack_engine(inner.spec, {**inner.payloads, FINDER: small.read_bytes()})
    with pytest.raises(EngineFileError, match=r"finder\.fbts: has a finder itself; expected"):
        finder_of(read_engine_file(nested(engine, twice)))


def test_a_damaged_finder_is_refused(engine: Path, tmp_path: Path) -> None:
    content = bytearray(write_voxel_finder(tmp_path / "finder.fbts").read_bytes())
    content[-70] ^= 1
    with pytest.raises(
        EngineFileError, match=r"finder\.fbts: payload 'model\.onnx' does not match"
    ):
        finder_of(read_engine_file(nested(engine, bytes(content))))


def test_focus_needs_a_finder(engine: Path) -> None:
    options = SegmenterOptions(focus=True)
    with pytest.raises(OptionsError, match=r"engine\.fbts has no finder; put one in with `fastbts"):
        Segmenter(engine, options=options)
    with pytest.raises(OptionsError, match="voxel is loaded already, without its finder; give"):
        Segmenter(VoxelEngine(), options=options)


@pytest.mark.parametrize("focus", [1, None, "yes"])
def test_focus_is_true_or_false(focus: Any) -> None:
    with pytest.raises(OptionsError, match=f"focus {focus!r}: expected True or False"):
        SegmenterOptions(focus=focus)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "fp32"), ("int8", "auto")])
def test_a_finder_is_loaded_as_its_engine(
    monkeypatch: pytest.MonkeyPatch, precision: str, expected: str
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(finders, "open_engine", lambda file, **given: seen.update(given))
    about = {"backend": "onnxruntime", "device": "cpu", "precision": precision}
    engine: Any = SimpleNamespace(description=about)
    finder: Any = "the file"
    open_finder(finder, engine, 3, 2)
    assert seen == {**about, "precision": expected, "n_threads": 3, "parallel": 2}
