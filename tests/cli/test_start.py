"""The start of the command line: each command imports what it needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from fastbts import cli
from fastbts.cli import COMMANDS, ahead, app


def imported_by(*arguments: str) -> set[str]:
    """Modules that a command has imported by its end."""
    script = (
        "import os, sys\n"
        "def end(code): print('\\n', *sys.modules); sys.stdout.flush(); end_at_once(code)\n"
        "end_at_once, os._exit = os._exit, end\n"
        f"sys.argv = ['fastbts', *{arguments}]\n"
        "from fastbts.cli import main; main()"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(result.stdout.splitlines()[-1].split())


def test_table_has_all_commands_in_their_modules() -> None:
    group = typer.main.get_command(app)
    named = [name for names in COMMANDS.values() for name in names]
    assert named == list(group.commands)  # type: ignore[attr-defined]
    modules = {name: command.callback.__module__ for name, command in group.commands.items()}  # type: ignore[attr-defined]
    expected = {name: f"fastbts.cli.{m}" for m, names in COMMANDS.items() for name in names}
    assert modules == expected


@pytest.mark.parametrize("arguments", [("predict", "no-such-folder"), ("--help",), ()])
def test_what_is_not_needed_is_not_imported(arguments: tuple[str, ...]) -> None:
    found = imported_by(*arguments)
    slow = {"nibabel", "PIL", "pydicom", "rich", "scipy"}
    assert "fastbts.cli.predict" in found
    own = subprocess.run(
        [sys.executable, "-c", "import sys, typer; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert slow & found <= {*own}, "older versions of typer import rich"
    assert "pydantic" not in found
    assert "fastbts.write.viewer.write" not in found
    others = {"fastbts.cli.study", "fastbts.write.preview"}
    assert others & found == (set() if arguments[:1] == ("predict",) else others)


def test_only_command_keeps_its_name() -> None:
    command = [sys.executable, "-m", "fastbts", "doctor", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "doctor [OPTIONS]" in result.stdout


def test_unknown_command() -> None:
    command = [sys.executable, "-m", "fastbts", "predicted"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "No such command 'predicted'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "begun"),
    [
        (["predict", "case", "--mode", "sliding"], [["case", "--mode", "sliding"]]),
        (["-q", "demo"], [[]]),
        (["doctor"], []),
        ([], []),
    ],
)
def test_what_segments_begins_at_once(
    arguments: list[str], begun: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(ahead, "begin", calls.append)
    monkeypatch.setattr(cli, "_app", lambda modules: lambda: sys.exit("end"))
    monkeypatch.setattr(sys, "argv", ["fastbts", *arguments])
    monkeypatch.setattr(cli, "open_streams", lambda: None)
    with pytest.raises(SystemExit, match="end"):
        cli.main()
    assert calls == begun


def test_what_segments_has_no_threads_of_numpy_that_wait_busily() -> None:
    """Their number is fixed when NumPy is imported, so it must not be imported before."""
    script = (
        "import os, sys, fastbts.cli as cli; "
        "assert 'numpy' not in sys.modules; "
        "cli._app = lambda modules: lambda: sys.exit(os.environ['OPENBLAS_NUM_THREADS']); "
        "sys.argv = ['fastbts', 'predict', '--help']; cli.main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    for given, used in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "7"}, "7")):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment | given, capture_output=True, text=True)
        assert done.stderr.strip() == used
