"""Checkpoints: complete at any moment, damaged ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.config import load_recipe
from training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def test_a_complete_checkpoint_exists_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, recipe = tmp_path / "last.ckpt", load_recipe("smoke")
    save_checkpoint(path, recipe, 1)
    with pytest.raises(AttributeError):
        save_checkpoint(path, recipe, 2, broken=lambda: None)
    assert load_checkpoint(path)[1]["step"] == 1

    def fail(*_: Path) -> None:
        raise OSError("stopped before the new file gets its name")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="stopped"):
            save_checkpoint(path, recipe, 2)
    assert load_checkpoint(path)[1]["step"] == 1
    save_checkpoint(path, recipe, 3)
    assert load_checkpoint(path)[1]["step"] == 3
    assert load_checkpoint(tmp_path / "last.previous")[1]["step"] == 1


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, load_recipe("smoke"), 4, network={}, average={})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"not a complete checkpoint.*last\.previous"):
        load_checkpoint(path)
    torch.save({"recipe": Path("x")}, path)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(path)
