"""The learning curve, on a run written by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.commands import run
from training.config import RECIPES, StageConfig, load_recipe
from training.learning import n_voxels


def test_curve_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(RECIPES / "steady.yaml", tmp_path / "recipe.yaml")
    points = [{"step": 1000, "ET": 0.6, "HGG": 0.7, "mean": 0.65}, {"step": 2000}]
    points[1] |= {"ET": 0.7, "HGG": 0.8, "mean": 0.75}
    (tmp_path / "dice.jsonl").write_text("".join(f"{json.dumps(point)}\n" for point in points))
    groups = {"HGG": {"n": 8, "mean": 0.82}}
    (tmp_path / "val.json").write_text(json.dumps({"groups": groups, "mean": {"mean": 0.78}}))
    files = ("--json", tmp_path / "curve.json", "--figure", tmp_path / "curve.png")
    assert run("learning", tmp_path, "--shipped", tmp_path / "val.json", *files) == 0
    assert "step 2000  ET 0.7  HGG 0.8  mean 0.75" in capsys.readouterr().out
    (first,) = json.loads((tmp_path / "curve.json").read_text())["runs"]
    stages = load_recipe("steady").stages
    step, last = (n_voxels([stage], 1) / 1e9 for stage in stages)
    assert [point.pop("gvoxel") for point in first["points"]] == [
        pytest.approx(n * step, abs=1e-3) for n in (1000, 2000)
    ]
    assert first["points"] == points
    assert first["shipped"]["gvoxel"] == pytest.approx(
        2000 * step + stages[-1].steps * last, abs=1e-3
    )
    assert first["shipped"]["HGG"] == 0.82
    again = ("--after", tmp_path / "curve.json", "--json", tmp_path / "both.json")
    assert run("learning", tmp_path, *again, "--figure", tmp_path / "curve.png") == 0
    runs = json.loads((tmp_path / "both.json").read_text())["runs"]
    assert runs[1]["points"][0]["gvoxel"] == pytest.approx(
        first["shipped"]["gvoxel"] + 1000 * step, abs=1e-2
    )
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    again = ("--after", tmp_path / "both.json", "--json", tmp_path / "all.json")
    assert run("learning", tmp_path, *again) == 0
    runs = json.loads((tmp_path / "all.json").read_text())["runs"]
    assert runs[2]["points"] == runs[1]["points"], "from the same start: the second shipped nothing"


def test_voxels_of_stages() -> None:
    stages = [StageConfig(10, (32, 32, 32), 2), StageConfig(0, (64, 64, 64), 1)]
    assert n_voxels(stages, 4) == 4 * 2 * 32**3
    assert n_voxels(stages, 13) == 10 * 2 * 32**3 + 3 * 64**3


def test_a_run_without_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(RECIPES / "steady.yaml", tmp_path / "recipe.yaml")
    assert run("learning", tmp_path) == 1
    assert "dice.jsonl: missing; train with labelled validation" in capsys.readouterr().err
