"""From a case on disk to a prediction by the engine it trained: smoke recipe, interrupted and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import MODALITIES, Segmenter, read_case
from fastbts.enginefile import read_engine_file
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import load_recipe
from training.export import export
from training.train import Trainer, learning_rate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_small_case: Callable[[int, Path], None]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed in (1, 2):
        write_small_case(seed, folder / f"case{seed}")
    (folder / "cases.csv").write_text("case,split\ncase1,train\ncase2,train\n")
    return folder


def train(data: Path, run: Path, recipe: str) -> None:
    command = [
        sys.executable,
        "-m",
        "training.train",
        "--recipe",
        recipe,
        "--data",
        str(data),
        "--out",
        str(run),
        "--threads",
        "1",
    ]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True)


@pytest.fixture(scope="module", params=["smoke", "smoke-clip"])
def run(data: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(data, folder, request.param)
    return folder


def test_resumed_run_ends_with_the_same_bits(data: Path, run: Path, tmp_path: Path) -> None:
    """Starts from the checkpoint at step 4 of 6, as a killed run would."""
    recipe, state = load_checkpoint(run / "last.previous")
    assert state["step"] == 4
    save_checkpoint(tmp_path / "last.ckpt", recipe, **state)
    train(data, tmp_path, recipe.name)
    whole, resumed = load_checkpoint(run / "last.ckpt")[1], load_checkpoint(tmp_path / "last.ckpt")[1]
    assert resumed["step"] == whole["step"] == 6
    for part in ("network", "average"):
        for name, weight in whole[part].items():
            assert torch.equal(weight, resumed[part][name]), name


def test_exported_engine_predicts(data: Path, run: Path, tmp_path: Path) -> None:
    parity = export(run / "last.ckpt", tmp_path / "smoke.fbts", license="test", data="phantoms", note="two phantoms")
    assert parity["max_logit_difference"] < 1e-3
    assert parity["label_agreement"] > 0.999, "an untrained network's logits lie near 0, where rounding decides"
    file = read_engine_file(tmp_path / "smoke.fbts")
    recipe = load_checkpoint(run / "last.ckpt")[0]
    assert file.spec.optional_modalities == (MODALITIES if recipe.name == "smoke-clip" else ())
    assert file.manifest["training"]["recipe"]["name"] == recipe.name
    assert len(file.manifest["training"]["loss_per_100_steps"]) == 1
    assert file.manifest["training"]["note"] == "two phantoms"
    content = (tmp_path / "smoke.fbts").read_bytes()
    assert str(ROOT).encode() not in content, "no path of the machine that exported"
    assert b"stack_trace" not in content
    assert file.manifest.get("prompts", {}).get("encoder") == (
        "orthonormal prompts, not CLIP" if recipe.name == "smoke-clip" else None
    )
    result = Segmenter(tmp_path / "smoke.fbts", precision="f32").predict(read_case(data / "case1"))
    assert result.labels.shape == (96, 96, 64)
    assert set(np.unique(result.labels)) <= {0, 1, 2, 4}


def test_learning_rate_by_hand() -> None:
    recipe = load_recipe("smoke")  # 2 steps of warm-up, 6 in all
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in range(7)]
    assert rates == pytest.approx([0.5, 1, 1, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5, 0])


def test_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    trainer = Trainer(load_recipe("smoke"), tmp_path)
    trainer.save()
    trainer.step = 1
    with pytest.raises(AttributeError):
        save_checkpoint(tmp_path / "last.ckpt", trainer.recipe, 2, broken=lambda: None)
    assert load_checkpoint(tmp_path / "last.ckpt")[1]["step"] == 0
    trainer.save()
    assert load_checkpoint(tmp_path / "last.ckpt")[1]["step"] == 1
    assert load_checkpoint(tmp_path / "last.previous")[1]["step"] == 0
