"""The command that writes a file of prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts.spec import REGIONS
from tests.training.clips import T
from tests.training.commands import run
from training.clip.prompts import load_prompts, region_texts


def test_prompts_of_a_model(tiny_clip: str, tmp_path: Path) -> None:
    out = tmp_path / "prompts.npz"
    assert run("prompts", "--out", out, "--model", tiny_clip, "--random", 3) == 0
    prompts = load_prompts(out)
    assert prompts.labels == REGIONS
    assert prompts.texts == tuple(region_texts().values())
    assert prompts.embeddings.shape == (3, T)


def test_shuffled_vectors_of_a_file(tmp_path: Path) -> None:
    out, vectors = tmp_path / "prompts.npz", tmp_path / "vectors.pth"
    torch.save(torch.eye(4), vectors)
    command = ("prompts", "--out", out, "--vectors", vectors)
    assert run(*command, "--rows", 2, 0, 1, "--shuffle") == 0
    assert load_prompts(out).embeddings.tolist() == np.eye(4)[[0, 1, 2]].tolist()
    assert load_prompts(out).encoder.endswith("rows 2 0 1, shuffled")


def test_unusable_options_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prompts.npz"
    for options, code, message in (
        (("--weights", tmp_path / "none.pt"), 1, "none.pt: cannot be read"),
        ((), 2, "--random and --vectors, got 0"),
        (("--random", 0, "--pretrained", "openai"), 2, "--random and --vectors, got 2"),
        (("--vectors", "x.pth"), 2, "--vectors: expected --rows with the rows of WT, TC and ET"),
    ):
        assert run("prompts", "--out", out, *options) == code
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert message in errors
    assert not out.exists()
