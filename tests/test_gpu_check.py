"""A dry run of scripts/gpu_check.sh: its steps, on the emulated device, where that can be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from training.config import model_config
from training.model import UNet3d

ROOT = Path(__file__).parents[1]
LACKING = ("openvino", "nncf", "monai", "tensorrt_rtx_bindings", "cryptography", "open_clip")
"""Packages that the steps must do without."""
WITHOUT_THEM = f"import sys; sys.modules.update(dict.fromkeys({LACKING}))"


def dry_run(folder: Path, weights: Path, steps: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the summary."""
    settings = {"FASTBTS_DRY_RUN": "1", "FASTBTS_WEIGHTS": str(weights), "FASTBTS_STEPS": steps}
    lacking = weights.parent / "lacking"
    lacking.mkdir()
    (lacking / "sitecustomize.py").write_text(WITHOUT_THEM)
    settings["PYTHONPATH"] = str(lacking)
    run = subprocess.run(
        [str(ROOT / "scripts/gpu_check.sh"), str(folder)],
        env={**os.environ, **settings, "PYTHON": sys.executable},
        capture_output=True,
        check=False,
    )
    lines = (folder / "summary.jsonl").read_text().splitlines()
    return run.returncode, [json.loads(line) for line in lines]


def test_the_steps_of_most_worth_take_five_minutes_at_most() -> None:
    script = (ROOT / "scripts/gpu_check.sh").read_text()
    limits = {name: int(n) for name, n in re.findall(r"^ *step (\w+) (\d+) ", script, re.M)}
    first = ["machine", "build", "tests", "predict", "ops"]
    assert list(limits)[:5] == first
    assert sum(limits[name] for name in first) <= 300


@pytest.mark.slow
def test_every_step_reports_and_a_prediction_is_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = default_engine_path()
    recipe = read_engine_file(path).manifest["training"]["recipe"]
    weights = tmp_path / "weights.pt"
    torch.save(UNet3d(model_config(recipe["model"], str(path))).state_dict(), weights)
    out = tmp_path / "out"
    status, lines = dry_run(out, weights, "build predict ops profile memcheck peers")
    results = {line["step"]: line for line in lines if "result" in line}
    assert status == 0
    assert all(line["dry_run"] for line in results.values())
    assert results.pop("predict")["result"] == "passed"
    assert {line["result"] for line in results.values()} == {"skipped: a dry run"}
    assert set(results) == {"build", "ops", "profile", "memcheck", "peers"}
    (predicted,) = (line for line in lines if "different_voxels" in line)
    assert predicted["emulated"]
    assert predicted["different_voxels"] == 0 < predicted["labelled_voxels"]
    assert sorted(file.name for file in out.iterdir()) == ["log.txt", "summary.jsonl"]


@pytest.mark.slow
def test_a_failed_step_does_not_stop_the_others(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_text("no weights")
    status, lines = dry_run(tmp_path, weights, "predict peers")
    assert status == 1
    assert [(line["step"], line["result"]) for line in lines] == [
        ("predict", "failed with 1"),
        ("peers", "skipped: a dry run"),
    ]
    assert "UnpicklingError" in (tmp_path / "log.txt").read_text()
