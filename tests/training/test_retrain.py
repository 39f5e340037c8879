"""One command retrains, rebuilds all engines and measures them; here with a recipe of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastbts.engine.file import read_engine_file
from tests.conftest import ROOT


@pytest.mark.slow
def test_one_command_retrains_rebuilds_and_measures(phantoms: Path, tmp_path: Path) -> None:
    line = ("scripts/train.sh", "smoke", phantoms, tmp_path / "run")
    # Rounding changes many labels of a network that has learnt nothing.
    settings = {"PYTHON": sys.executable, "BUILD": "--accept-parity", "FASTBTS_CACHE": "off"}
    environment = {**os.environ, **settings}
    done = subprocess.run(
        [*map(str, line)], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    run = tmp_path / "run"
    scores = {path.stem: json.loads(path.read_text()) for path in run.glob("*.json")}
    assert {"dice-val", "confidence"} <= scores.keys()
    engines = {path.stem: read_engine_file(path) for path in run.glob("*.fbts")}
    weights = {file.manifest["spec"]["name"] for file in engines.values()}
    assert weights == {"fastbts-smoke"}
    for package, engine in (("nncf", "smoke-int8"), ("tensorrt_rtx_bindings", "smoke-rtx")):
        assert (engine in engines) == (find_spec(package) is not None)
        assert (f"without {package}" in done.stdout) == (engine not in engines)
    if "smoke-int8" in engines:
        assert scores["precision"]["n_cases"] == 1
