"""The learning curve, on a run written by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.commands import run
from training.config import RECIPES


def test_curve_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(RECIPES / "steady.yaml", tmp_path / "recipe.yaml")
    points = [{"step": 1000, "ET": 0.6, "HGG": 0.7, "mean": 0.65}, {"step": 2000}]
    points[1] |= {"ET": 0.7, "HGG": 0.8, "mean": 0.75}
    (tmp_path / "dice.jsonl").write_text("".join(f"{json.dumps(point)}\n" for point in points))
    groups = {"HGG": {"n": 8, "mean": 0.82}}
    (tmp_path / "val.json").write_text(json.dumps({"groups": groups, "mean": {"mean": 0.78}}))
    files = ("--json", tmp_path / "curve.json", "--figure", tmp_path / "curve.png")
    assert run("learning", tmp_path, "--decayed", tmp_path / "val.json", *files) == 0
    assert "step 2000  ET 0.7  HGG 0.8  mean 0.75" in capsys.readouterr().out
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve["voxels_per_step"] == 2 * 96**3
    assert curve["points"] == points
    assert curve["decayed"] == {"HGG": 0.82, "mean": 0.78}
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_run_without_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(RECIPES / "steady.yaml", tmp_path / "recipe.yaml")
    assert run("learning", tmp_path) == 1
    assert "dice.jsonl: missing; train with labelled validation" in capsys.readouterr().err
