"""The training example starts from the shipped weights; it calls commands that exist."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from examples import train_own_data
from fastbts.engine.load import default_engine_path
from training import start
from training.__main__ import load_command
from training.loop.checkpoint import averaged_weights, load_checkpoint


@pytest.mark.slow
def test_training_continues_from_the_shipped_weights(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run, recipe = tmp_path / "data", tmp_path / "run", tmp_path / "own_data.yaml"
    for name in ("case_a", "case_b"):
        shutil.copytree(dataset / name, data / name)
    (data / "cases.csv").write_text("case,split\ncase_a,train\ncase_b,val\n")
    values = yaml.safe_load(train_own_data.RECIPE.read_text())
    short = {"stages": [{"steps": 1, "crop": [32, 32, 32]}], "warmup_steps": 1}
    recipe.write_text(yaml.safe_dump(values | short))
    monkeypatch.setattr(start, "engine_weights", cache(start.engine_weights))  # it exports
    real, others = train_own_data.training, list[list[str]]()
    monkeypatch.setattr(
        train_own_data,
        "training",
        lambda given: real(given) if given[0] == "train" else others.append(given),
    )
    train_own_data.train(data, run, recipe)
    assert [given[0] for given in others] == ["export", "evaluate", "evaluate"]
    for name, *given in others:  # tests/training runs them; here only whether they take these
        load_command(name).make_context(name, given)
    trained = averaged_weights(load_checkpoint(run / "last.ckpt")[1])
    for name, weight in start.engine_weights(default_engine_path()).items():
        if ".running_" in name:  # statistics of other images
            continue
        np.testing.assert_allclose(trained[name].numpy(), weight.numpy(), atol=0.01, err_msg=name)
