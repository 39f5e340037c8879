"""The READMEs' Python runs, the files and commands they name exist, and their tables are those of the results."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts.cli import app
from fastbts.phantom import make_case, write_case
from training.__main__ import COMMANDS, load_command, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
READMES = {  # with continued lines made one
    name: re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    for name in ("README.md", "training/README.md", "csrc/README.md")
}
PARTS = ("fastbts", "csrc", "training", "benchmarks", "models", "scripts", "tests")


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 2
    write_case(make_case(0), tmp_path / "case")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(snippets), {})
    assert (tmp_path / "seg.nii.gz").is_file()
    assert (tmp_path / "seg.json").is_file()


@pytest.mark.parametrize("name", READMES)
def test_links_and_named_files_exist(name: str) -> None:
    """Paths begin at the top or beside the README; a bare name of Python or YAML is a file somewhere below the README."""
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", READMES[name]):
        assert (folder / target).exists(), target
    for word in re.findall(r"`([\w.*/-]+)[` ]", READMES[name]):
        first, slash, _ = word.partition("/")
        if slash and (first in PARTS or (folder != ROOT and (folder / first).is_dir())):
            assert list((ROOT if first in PARTS else folder).glob(word.rstrip("/"))), word
        elif not slash and word.endswith((".py", ".yaml")):
            assert list(folder.rglob(word)), word


def test_commands_exist() -> None:
    named = set(re.findall(r"^    fastbts ([\w-]+)|`fastbts ([\w-]+)", README, re.MULTILINE))
    names = {command for pair in named for command in pair if command}
    assert names >= {"predict", "info", "build", "verify", "doctor"}
    for command in names:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command
    for target in re.findall(r"(?:^    |`)make (\w+)", "".join(READMES.values()), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    presets = {
        preset["name"]
        for preset in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    }
    assert (
        {"cpu", "asan"}
        <= set(re.findall(r"--preset[ =](\w+)", READMES["csrc/README.md"]))
        <= presets
    )


@pytest.mark.parametrize("name", ["README.md", "training/README.md"])
def test_commands_of_training_parse(name: str) -> None:
    """By the parser of each command, without running it."""
    commands = re.findall(r"-m training (\w+)([^`\n]*)", READMES[name])
    assert len(commands) >= 5
    for command, arguments in commands:
        assert command in COMMANDS
        if "..." not in arguments:
            load_command(command).make_context(command, shlex.split(arguments, comments=True))


def test_options_of_training_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each --option that training/README.md names outside a command belongs to one of them."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", sys.argv)  # which is restored
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    named = set(re.findall(r"(?:`|# or )(--[\w-]+)", READMES["training/README.md"]))
    assert {"--lesions", "--shuffle"} <= named <= known


def test_tables_come_from_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.make_tables", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
