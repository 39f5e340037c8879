"""Too little memory is an error of one line, wherever it is missed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fastbts import cli
from fastbts.cli.common import reported_errors
from fastbts.phantom import make_case, write_case


@pytest.mark.serial
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
def test_predict_under_address_space_limits(tmp_path: Path) -> None:
    """What a limit allows depends on the machine: 0.6 GB is too little for any.

    Without a least amount, one of a hundred such calls waited forever for a thread.
    """
    write_case(make_case(0), tmp_path / "case")
    codes = []
    for kb in (300_000, 600_000, 1_200_000, 1_300_000, 1_350_000, 1_500_000, 1_800_000):
        out = tmp_path / str(kb)
        command = f"ulimit -v {kb}; {sys.executable} -m fastbts predict case -o {out}"
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=120
        )
        codes.append(done.returncode)
        if done.returncode:
            (line,) = done.stderr.splitlines()
            assert line.startswith("error: ")
            assert "memory" in line
            assert not list(out.glob("*"))
    assert codes[:2] == [1, 1]
    assert set(codes) <= {0, 1}


@pytest.mark.parametrize("error", [MemoryError("no more"), OSError(12, "Cannot allocate memory")])
def test_a_command_without_memory_ends_with_one_line(error: Exception) -> None:
    program = typer.Typer()

    @program.command()
    def command() -> None:
        with reported_errors():
            raise error

    result = CliRunner().invoke(program, [])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: out of memory: ")
    assert line.endswith("; free memory, or use a larger machine")


def test_no_memory_for_a_library_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_memory(modules: object) -> object:
        raise ImportError("a.so: failed to map segment from shared object")

    monkeypatch.setattr(cli, "_app", no_memory)
    monkeypatch.setattr(cli, "open_streams", lambda: None)
    monkeypatch.setattr(cli, "close_streams", lambda stdout, code: code)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(sys, "argv", ["fastbts", "doctor"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory: a.so: ")
    assert line.endswith("; free memory, or use a larger machine")
