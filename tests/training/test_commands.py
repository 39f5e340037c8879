"""The program `python -m training`: its list of commands, its errors and exit codes."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.commands import run
from training.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_the_commands_without_importing_torch() -> None:
    code = (
        "import sys, training.__main__ as program\n"
        "try: program.main(['--help'])\n"
        "except SystemExit: sys.exit(any(m in sys.modules for m in ('torch', 'lightning')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in COMMANDS:
        assert re.search(rf"\b{name}  +[A-Z]", done.stdout), name


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert "--" in capsys.readouterr().out
    command = importlib.import_module(f"training.{name}").command
    assert inspect.getdoc(command) == COMMANDS[name], "one sentence, in both places"


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trian") == 2
    assert "No such command 'trian'" in capsys.readouterr().err
    assert run("tune", "x.fbts") == 2
    assert "--data" in capsys.readouterr().err
    assert run("train", "--data", ".", "--out", "x", "--recipe", "light", "--decay", "x.ckpt") == 2
    assert "expected either --recipe or --decay, got both" in capsys.readouterr().err


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = ("--data", tmp_path), ("--out", tmp_path / "out")
    for arguments, message in (
        (("tune", "x.fbts", *data), f"{tmp_path}: no cases of split 'val'"),
        (("ablate", *data, *out, "--recipe", "none"), "none.yaml: no such recipe; known recipes"),
        (("export", tmp_path / "none.ckpt", *out), "none.ckpt: No such file or directory"),
        (("train", "--data", tmp_path / "none", *out), "none: No such file or directory"),
        (("evaluate", *data), f"{tmp_path}: no cases of split 'val'"),
    ):
        assert run(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
