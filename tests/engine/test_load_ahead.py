"""The shipped engine, loaded while the process does something else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastbts import EngineFileError, OptionsError
from fastbts.engine import load
from fastbts.engine.load import load_ahead, open_engine, read_engine
from tests.conftest import write_voxel_engine


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[object, ...]]]:
    """How engines were opened; the shipped one is a small one."""
    shipped = write_voxel_engine(tmp_path / "shipped.fbts")
    monkeypatch.setattr(load, "default_engine_path", lambda: shipped)
    choices: list[tuple[object, ...]] = []
    open_file = load._opened

    def counted(file: object, *choice: object) -> object:
        choices.append(choice)
        return open_file(file, *choice)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "_opened", counted)
    yield choices
    for ahead in load._ahead:
        ahead.engine.exception()  # no thread of it runs beside the next test
    load._ahead.clear()


def test_first_caller_gets_the_engine(opened: list[tuple[object, ...]]) -> None:
    load_ahead()
    file = read_engine(None)
    first = open_engine(file)
    assert opened == [("auto", "auto", "auto", 0, 1)]
    second = open_engine(file)
    assert len(opened) == 2
    assert second is not first, "each owner closes its own"


def test_engine_for_threads_and_calls_at_once(opened: list[tuple[object, ...]]) -> None:
    load_ahead(2, 2)
    engine = open_engine(read_engine(None), n_threads=2, parallel=2)
    assert opened == [("auto", "auto", "auto", 2, 2)]
    assert engine.description["n_threads"] == 2


@pytest.mark.parametrize("choice", [{"n_threads": 1}, {"precision": "fp32"}])
def test_engine_is_dropped_where_another_is_wanted(
    opened: list[tuple[object, ...]], choice: dict[str, Any]
) -> None:
    load_ahead()
    file = read_engine(None)
    (ahead,) = load._ahead
    engine = open_engine(file, **choice)
    assert load._ahead == []
    assert ahead.engine.cancelled() or ahead.engine.result() is not engine


def test_engine_is_dropped_where_another_file_is_wanted(
    opened: list[tuple[object, ...]], tmp_path: Path
) -> None:
    load_ahead()
    (ahead,) = load._ahead
    other = read_engine(shutil.copy(tmp_path / "shipped.fbts", tmp_path / "other.fbts"))
    engine = open_engine(other)
    assert load._ahead == []
    assert ahead.engine.cancelled() or ahead.engine.result() is not engine


def test_signature_is_checked(opened: list[tuple[object, ...]], tmp_path: Path) -> None:
    load_ahead()
    with pytest.raises(OptionsError, match=r"key\.pub: cannot be read as a key"):
        read_engine(None, tmp_path / "key.pub")


def test_damaged_file_is_an_error_of_reading(
    opened: list[tuple[object, ...]], tmp_path: Path
) -> None:
    (tmp_path / "shipped.fbts").write_bytes(b"no engine")
    load_ahead()
    for _ in range(2):
        with pytest.raises(EngineFileError, match=r"shipped\.fbts: not an engine file"):
            read_engine(None)
