"""Compiled networks of OpenVINO: a second engine loads what the first one compiled."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastbts import load_engine
from fastbts.engine import model_cache
from fastbts.engine.backends import openvino
from tests.conftest import write_voxel_engine

Blobs = Callable[[], list[Path]]


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """The files of an empty cache."""
    monkeypatch.setenv("FASTBTS_CACHE", str(tmp_path / "cache"))
    return lambda: sorted((tmp_path / "cache").glob("*"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precision of each network that is read to be compiled."""
    precisions: list[str] = []
    read = openvino._network

    def counted(*args: object) -> object:
        precisions.append(str(args[3]))
        return read(*args)

    monkeypatch.setattr(openvino, "_network", counted)
    return precisions


@pytest.fixture
def engine_file(tmp_path: Path) -> Path:
    return write_voxel_engine(tmp_path / "voxel.fbts")


X = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 32)).astype(np.float32)


def test_second_engine_is_not_compiled(
    engine_file: Path, blobs: Blobs, compiled: list[str]
) -> None:
    first, second = (load_engine(engine_file, precision="fp32") for _ in range(2))
    assert compiled == ["fp32"]
    assert len(blobs()) == 1
    assert second.description == first.description
    np.testing.assert_array_equal(second.infer(X), first.infer(X))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_shipped_engine_gives_the_same_bits(
    blobs: Blobs, compiled: list[str], precision: str
) -> None:
    x = np.random.default_rng(1).standard_normal((1, 4, 32, 48, 32)).astype(np.float32)
    logits = [load_engine(precision=precision).infer(x) for _ in range(2)]
    assert len(compiled) == len(blobs()) == 1
    np.testing.assert_array_equal(logits[1], logits[0])


def test_memory_of_a_loaded_network_lives_as_long_as_it_is_used(
    engine_file: Path, blobs: Blobs, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO does not keep it; also if the file is gone, and the engine loads it again."""
    expected = load_engine(engine_file, precision="fp32").infer(X)
    memory: list[weakref.ref[np.ndarray]] = []
    load = model_cache.load

    def loaded(key: str) -> np.ndarray | None:
        found = load(key)
        memory.append(weakref.ref(found))
        return found

    monkeypatch.setattr(model_cache, "load", loaded)
    again = load_engine(engine_file, precision="fp32")
    blobs()[0].unlink()
    gc.collect()
    for _ in range(2):
        assert memory[0]() is not None
        np.testing.assert_array_equal(again.infer(X), expected)
    again.close()
    del again
    gc.collect()
    assert memory[0]() is None
    assert len(compiled) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "fp32", "n_threads": 1},
        {"precision": "auto"},
        {"precision": "fp32", "text": "another engine"},
    ],
)
def test_another_setting_or_engine_is_compiled(
    tmp_path: Path, engine_file: Path, blobs: Blobs, compiled: list[str], change: dict[str, str]
) -> None:
    load_engine(engine_file, precision="fp32")
    name = change.pop("text", None)
    other = write_voxel_engine(tmp_path / "other.fbts", name=name) if name else engine_file
    engine = load_engine(other, **change)  # type: ignore[arg-type]
    is_new = engine.description["precision"] != "fp32" or change != {"precision": "auto"}
    assert len(compiled) == len(blobs()) == 1 + is_new


@pytest.mark.parametrize("changed", ["__version__", "_cpu_name", "_source_sha256", "openvino"])
def test_another_version_or_processor_is_compiled(
    engine_file: Path,
    blobs: Blobs,
    compiled: list[str],
    changed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_engine(engine_file, precision="fp32")
    if changed == "openvino":
        monkeypatch.setattr(openvino.OpenVINOEngine.package(), "__version__", "2027.1.0")
    else:
        other = "other" if changed == "__version__" else lambda *_: "other"
        monkeypatch.setattr(openvino, changed, other)
    load_engine(engine_file, precision="fp32")
    assert len(compiled) == len(blobs()) == 2


@pytest.mark.parametrize(
    "blob",
    [b"", b"x", bytes(10**5), b"CPU\0" * 99, b"RR_UPCVO" + bytes(500)],
)
def test_what_openvino_refuses_is_compiled_again(
    engine_file: Path, blobs: Blobs, compiled: list[str], blob: bytes
) -> None:
    """Such as the network of another build of the same version; the digest is right."""
    expected = load_engine(engine_file, precision="fp32").infer(X)
    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_cache, "load", lambda key: keys.append(key))
        load_engine(engine_file, precision="fp32")
    model_cache.store(keys[0], lambda: blob)
    again = load_engine(engine_file, precision="fp32")
    np.testing.assert_array_equal(again.infer(X), expected)
    assert len(compiled) == 3
    load_engine(engine_file, precision="fp32")
    assert len(compiled) == 3, "stored anew"


def test_damaged_files_are_compiled_again(
    engine_file: Path, blobs: Blobs, compiled: list[str]
) -> None:
    expected = load_engine(engine_file, precision="fp32").infer(X)
    content = bytearray(blobs()[0].read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        blobs()[0].write_bytes(damaged)
        np.testing.assert_array_equal(load_engine(engine_file, precision="fp32").infer(X), expected)
    assert len(compiled) == 4


def test_network_that_cannot_be_exported_is_used(
    engine_file: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("not supported")

    compiled_model = openvino.OpenVINOEngine.package().CompiledModel
    monkeypatch.setattr(compiled_model, "export_model", refuse, raising=False)
    engine = load_engine(engine_file, precision="fp32")
    assert np.isfinite(engine.infer(X)).all()
    assert blobs() == []
