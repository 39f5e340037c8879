"""The mean of networks, from files to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.commands import run
from training.config import load_recipe
from training.export import export
from training.loop.checkpoint import averaged_weights, load_checkpoint, save_checkpoint
from training.loop.module import TrainingModule


def saved(path: Path, seed: int) -> dict[str, torch.Tensor]:
    recipe = load_recipe("smoke-clip")
    module = TrainingModule(recipe)
    torch.manual_seed(seed)
    weights = {
        name: torch.randn_like(value) * 0.1 if name.endswith("weight") else value
        for name, value in module.network.state_dict().items()
    }
    average = {f"module.{name}": value for name, value in weights.items()}
    assert module.prompts is not None
    about = {"prompts": module.prompts.about(), "teacher": None}
    save_checkpoint(path, recipe, seed, average={**average, "n_averaged": torch.tensor(1)}, **about)
    return weights


def test_mean_of_checkpoints(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a.ckpt", 3), saved(tmp_path / "b.ckpt", 4)
    out = tmp_path / "mean.ckpt"
    assert run("average", tmp_path / "a.ckpt", tmp_path / "b.ckpt", "--out", out) == 0
    recipe, state = load_checkpoint(out)
    assert (recipe, state["step"]) == (load_recipe("smoke-clip"), 3)
    for name, weight in averaged_weights(state).items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2, msg=name)


@pytest.mark.slow
def test_mean_with_an_engine_can_be_exported(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a.ckpt", 3), saved(tmp_path / "b.ckpt", 4)
    export(tmp_path / "b.ckpt", tmp_path / "b.fbts")
    out = tmp_path / "mean.ckpt"
    assert run("average", tmp_path / "a.ckpt", tmp_path / "b.fbts", "--out", out) == 0
    weight = averaged_weights(load_checkpoint(out)[1])["head.weight"]
    expected = (first["head.weight"] + second["head.weight"]) / 2
    torch.testing.assert_close(weight, expected, atol=1e-3, rtol=1e-3)  # the engine's are float16
    export(out, tmp_path / "mean.fbts")


def test_what_cannot_be_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "a.ckpt", 3)
    assert run("average", tmp_path / "a.ckpt", "--out", tmp_path / "mean.ckpt") == 2
    assert "expected two networks or more, first a checkpoint" in capsys.readouterr().err
    recipe = load_recipe("smoke")
    average = {f"module.{n}": v for n, v in TrainingModule(recipe).network.state_dict().items()}
    save_checkpoint(tmp_path / "other.ckpt", recipe, 1, average=average)
    pair = (tmp_path / "other.ckpt", tmp_path / "a.ckpt")
    assert run("average", *pair, "--out", tmp_path / "mean.ckpt") == 1
    assert "has weights that the recipe's network lacks" in capsys.readouterr().err
    assert not (tmp_path / "mean.ckpt").exists()
