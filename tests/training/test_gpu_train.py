"""The script for a sitting on a lent GPU, on the CPU and with a tiny budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGTERM

import pytest
import yaml

from tests.conftest import ROOT
from tests.training import commands
from tests.training.commands import terminate_at
from training.config import RECIPES


@pytest.mark.slow
def test_a_sitting_continues_a_run_and_leaves_a_network(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values["stages"][0]["steps"] = 0
    recipe, run = tmp_path / "endless.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values))
    # A sitting on a busy machine may end before its first step; this one begins with two.
    terminate_at(2, monkeypatch)
    options = ("--data", phantoms, "--cache", run / "cache", "--workers", 1)
    assert commands.run("train", "--recipe", recipe, "--out", run, *options) == 128 + SIGTERM
    line = ("scripts/gpu_train.sh", recipe, phantoms, run, 24)
    environment = {**os.environ, "PYTHON": sys.executable, "WORKERS": "1"}
    subprocess.run([*map(str, line)], cwd=ROOT, env=environment, check=True)
    logs = [run / "log.jsonl", run / "decay/log.jsonl"]
    steady, decay = ([json.loads(row) for row in p.read_text().splitlines()] for p in logs)
    assert [row["step"] for row in steady] == list(range(1, len(steady) + 1))
    assert len(steady) >= 2
    assert [row["step"] for row in decay][:2] == [len(steady) + 1, len(steady) + 2]
    assert (run / "decay/last.ckpt").is_file()
