"""The README's Python runs, its files exist, and its tables are those of the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts.cli import app
from fastbts.phantom import make_case, write_case

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 2
    write_case(make_case(0), tmp_path / "case")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(snippets), {})
    assert (tmp_path / "seg.nii.gz").is_file()
    assert (tmp_path / "seg.json").is_file()


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for pattern in re.findall(r"`((?:fastbts|csrc|training|benchmarks|models)/[^` ]*)`", README):
        assert list(ROOT.glob(pattern.rstrip("/"))), pattern


def test_commands_exist() -> None:
    named = set(re.findall(r"^    fastbts ([\w-]+)|`fastbts ([\w-]+)", README, re.MULTILINE))
    names = {command for pair in named for command in pair if command}
    assert names >= {"predict", "info", "build", "verify", "doctor"}
    for command in names:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_tables_come_from_results() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.make_tables", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
