"""READMEs and documents are correct: their files, links, commands, options and tables exist.

`tests/test_documents.py` runs them.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from fastbts.cli import app
from fastbts.labels import REGION_SCHEME, SCHEMES
from training.__main__ import COMMANDS, load_command

ROOT = Path(__file__).resolve().parents[1]
TOP = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"),
    *("training/README.md", "csrc/README.md"),
)
DOCS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
READMES = {  # with continued lines joined
    name: re.sub(r"\\\n\s*", "", (ROOT / name).read_text()) for name in (*TOP, *DOCS)
}
PARTS = ("fastbts", "csrc", "training", "benchmarks", "models", "scripts", "tests", "docs")


@pytest.mark.parametrize("name", READMES)
def test_links_and_named_files_exist(name: str) -> None:
    """Paths start at the top or next to the README; a bare *.py or *.yaml is below it or at the top."""
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", READMES[name]):
        assert (folder / target).exists(), target
    for word in re.findall(r"`([\w.*/-]+)[` ]", READMES[name]):
        first, slash, _ = word.partition("/")
        if first and slash and (first in PARTS or (folder != ROOT and (folder / first).is_dir())):
            assert list((ROOT if first in PARTS else folder).glob(word.rstrip("/"))), word
        elif not slash and word.endswith((".py", ".yaml")):
            assert list(folder.rglob(word)) or (ROOT / word).exists(), word


def test_label_schemes_are_in_the_table() -> None:
    table = READMES["docs/concepts/labels.md"].partition("| label scheme |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [*SCHEMES, REGION_SCHEME]


def test_commands_exist() -> None:
    program = typer.main.get_command(app)
    text = "\n".join(READMES[name] for name in ("README.md", "SECURITY.md", *DOCS))
    commands = re.findall(r"(?:^    |`)fastbts ([a-z][\w-]*)([^`\n]*)", text, re.MULTILINE)
    assert {name for name, _ in commands} >= {"predict", "info", "build", "verify", "doctor"}
    for name, arguments in commands:
        assert given(arguments) <= {"-h"} | options(program.commands[name]), name


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^    |`)make ([\w-]+)", "".join(READMES.values()), re.MULTILINE)
    assert {"demo", "test", "lint"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_presets_exist() -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    named = set(re.findall(r"--preset[ =](\w+)", READMES["csrc/README.md"]))
    assert {"cpu", "asan"} <= named <= {preset["name"] for preset in presets}


@pytest.mark.parametrize("path", [*(ROOT / "fastbts").rglob("*.py")], ids=str)
def test_messages_name_commands_of_training_that_exist(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"python -m training\.|`training\.\w+`", text)
    named = re.findall(r"(?:python -m |`)training (\w+)", text)
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("name", ["docs/how-to/train.md", "training/README.md"])
def test_commands_of_training_exist(name: str) -> None:
    """Each command is one of `python -m training`, and has the options that are given to it."""
    commands = re.findall(r"-m training (\w+)([^`\n]*)", READMES[name])
    assert len(commands) >= 5
    for command, arguments in commands:
        assert command in COMMANDS
        assert given(arguments) <= options(load_command(command)), command


def test_options_of_training_exist() -> None:
    """Each --option that training/README.md names outside a command belongs to one of them."""
    known = set().union(*(options(load_command(name)) for name in COMMANDS))
    named = set(re.findall(r"(?:`|# or )(--[\w-]+)", READMES["training/README.md"]))
    assert {"--lesions", "--shuffle"} <= named <= known


def given(arguments: str) -> set[str]:
    """Options in the arguments of a command."""
    return {word for word in shlex.split(arguments, comments=True) if word.startswith("-")}


def options(command: Any) -> set[str]:
    """Options of a typer command."""
    return {name for parameter in command.params for name in parameter.opts}


def test_tables_come_from_results() -> None:
    command = [sys.executable, "-m", "benchmarks.make_tables", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_of_a_run_of_ones_own_are_printed(tmp_path: Path) -> None:
    """What `make bench` ends with: the published results stay as they are."""
    shutil.copy(ROOT / "benchmarks/results/ops.json", tmp_path)
    command = [sys.executable, "-m", "benchmarks.make_tables", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ops\n\n| op | ms |")
    assert "| `brain_box` |" in done.stdout
    assert "speed" not in done.stdout
