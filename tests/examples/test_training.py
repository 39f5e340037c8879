"""The training example starts from the shipped weights and ends with an engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from examples.train_own_data import RECIPE, train
from fastbts.engine.load import default_engine_path
from training.start import engine_weights


@pytest.mark.slow
def test_training_continues_from_the_shipped_weights(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("case_a", "case_b"):
        shutil.copytree(dataset / name, data / name)
    (data / "cases.csv").write_text("case,split\ncase_a,train\ncase_b,val\n")
    recipe = yaml.safe_load(RECIPE.read_text())
    stages = [{"steps": 1, "crop": [32, 32, 32]}]
    short = tmp_path / "own_data.yaml"
    short.write_text(yaml.safe_dump({**recipe, "stages": stages, "warmup_steps": 1}))
    engine = train(data, tmp_path / "run", short)
    weights, shipped = engine_weights(engine), engine_weights(default_engine_path())
    assert weights.keys() == shipped.keys()
    assert all(np.allclose(weights[n], shipped[n], atol=0.01) for n in weights), "a short way"
    assert any(not np.array_equal(weights[n], shipped[n]) for n in weights), "but a way"
    assert capsys.readouterr().out.count("case_b") >= 2, "both engines were scored"
