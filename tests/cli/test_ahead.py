"""What a command begins before it is parsed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from fastbts import cli
from fastbts.cli import ahead, app


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Threads and calls at once of the engines that are loaded ahead, on a machine of four CPUs."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(ahead, "load_ahead", lambda *choice: begun.append(choice))
    monkeypatch.setattr(ahead, "n_cpus", lambda: 4)
    return begun


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folders `one` and `two` are there."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("one", (0, 1)),
        ("", (0, 1)),
        ("one --mode sliding", (0, 1)),
        ("one --threads=2", (2, 1)),
        ("one --threads 2 --jobs 3", (2, 3)),
        ("one --threads many", (0, 1)),
        ("one two", (0, 2)),
        ("one two --threads 1", (1, 1)),
        ("one -o two", (0, 1)),
        ("one --engine other.fbts", None),
        ("one --backend=native", None),
        ("--help", None),
    ],
)
def test_engine_is_loaded_for_the_threads_and_cases_that_are_named(
    words: str, expected: tuple[int, int] | None, engines: list[object]
) -> None:
    ahead.begin(words.split())
    assert engines == ([] if expected is None else [expected])


def test_options_exist() -> None:
    group = typer.main.get_command(app)
    for command in cli.SEGMENTING:
        parameters = group.commands[command].params  # type: ignore[attr-defined]
        options = {name for parameter in parameters for name in parameter.opts}
        assert "--engine" in options
        assert {"--engine", "--backend", "--device", "--precision"} & options <= ahead.OTHER_ENGINE
        if command == "predict":
            assert {"--threads", "--jobs"} <= options
