"""The script for a sitting on a lent GPU, on the CPU and with a tiny budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from training.config import RECIPES


@pytest.mark.slow
def test_a_sitting_leaves_a_run_and_a_network(phantoms: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    recipe["stages"][0]["steps"] = 0
    (tmp_path / "endless.yaml").write_text(yaml.safe_dump(recipe))
    for sitting in (1, 2):
        line = ("scripts/gpu_train.sh", tmp_path / "endless.yaml", phantoms, tmp_path / "run", 24)
        environment = {**os.environ, "PYTHON": sys.executable, "WORKERS": "1"}
        subprocess.run([*map(str, line)], cwd=ROOT, env=environment, check=True)
        logs = [tmp_path / "run/log.jsonl", tmp_path / "run/decay/log.jsonl"]
        steady, decay = ([json.loads(row) for row in p.read_text().splitlines()] for p in logs)
        assert [row["step"] for row in steady] == list(range(1, len(steady) + 1))
        assert len(decay) >= 2
        assert (tmp_path / "run/decay/last.ckpt").is_file()
        (tmp_path / "run/decay").rename(tmp_path / f"decay-{sitting}")
