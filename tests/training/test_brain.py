"""A network for brain masks: train, export, run."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fastbts import load_engine
from fastbts.engine.file import read_engine_file
from tests.training import commands
from tests.training.data.blocks import write_head, write_shape
from training.brain import dice, made_up_head
from training.data.cases import read_labels
from training.loop.losses import region_overlap

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for six steps on synthetic heads, of which some have the brain of a phantom."""
    folder = tmp_path_factory.mktemp("brain")
    write_head(folder / "heads")
    files = ("--anatomy", folder / "heads", "--shapes", write_shape(folder / "shapes.npz"))
    run = ("--recipe", "smoke-brain", "--data", phantoms, "--out", folder / "run")
    assert commands.run("train", *run, *files) == 0
    assert commands.run("export", folder / "run/last.ckpt", "-o", folder / "brain.fbts") == 0
    return folder / "brain.fbts"


@pytest.mark.slow
def test_an_engine_for_brain_masks(engine: Path) -> None:
    file = read_engine_file(engine)
    assert (file.spec.modalities, file.spec.regions) == (("head",), ("brain",))
    assert (file.spec.spacing_mm, file.spec.thresholds) == (2.0, (0.5,))
    assert file.manifest["license"] == "not stated"
    assert file.manifest["training"]["steps"] == 6
    assert file.manifest["parity"]["max_logit_difference"] < 1e-3
    tensor = np.random.default_rng(0).random((1, 1, 16, 24, 32), np.float32)
    assert load_engine(engine, precision="fp32").infer(tensor).shape == (1, 1, 16, 24, 32)


@pytest.mark.slow
def test_scores_of_such_an_engine(engine: Path, phantoms: Path, tmp_path: Path) -> None:
    heads = tmp_path / "raw"
    heads.mkdir()
    image = np.random.default_rng(0).integers(0, 900, (40, 42, 10), np.int16)
    for ending, voxels in (("", image), ("_hdbet", (image > 450).astype(np.uint8))):
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 4, 1.0])), heads / f"one{ending}.nii.gz")
    scores = tmp_path / "scores.json"
    options = ("--data", phantoms, "--heads", heads, "--precision", "fp32", "--json", scores)
    assert commands.run("brain", "--engine", engine, *options) == 0
    record = json.loads(scores.read_text())
    assert [row["image"] for row in record["cases"]] == ["flair", "t1", "t1ce", "t2", "all"]
    assert all(0 <= row["dice"] <= 1 for row in record["cases"])
    assert all(0 <= row["tumour_lost_percent"] <= 100 for row in record["cases"])
    (raw,) = record["heads"]
    assert raw["image"] == "one"
    assert 0 <= raw["dice"] <= 1
    assert commands.run("brain", "--engine", engine, "--heads", tmp_path / "nothing") == 1


def test_a_made_up_head_keeps_brain_and_tumour(phantoms: Path) -> None:
    head = made_up_head(phantoms / "case1")
    labels = read_labels(phantoms / "case1")
    assert head.images.shape == (4, *head.brain.shape)
    assert head.tumour.sum() == (labels > 0).sum()
    assert not (head.tumour & ~head.brain).any()
    outside = head.images[:, ~head.brain]
    assert (outside > 0).any(axis=1).all(), "a head around the brain, in every image"
    assert dice(head.brain, head.brain) == 1
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1


@pytest.mark.parametrize(
    ("recipe", "message"), [("smoke-brain", "--anatomy: recipe"), ("smoke", "--data: recipe")]
)
def test_a_run_needs_the_folders_of_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, message: str
) -> None:
    assert commands.run("train", "--recipe", recipe, "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_overlap_of_regions() -> None:
    label = torch.tensor([0, 1, 2, 2]).reshape(1, 1, 1, 4)
    found = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool).reshape(1, 2, 1, 1, 4)
    dices = region_overlap(found, label, {"both": (1, 2), "none": (3,)})
    assert dices.tolist() == pytest.approx([0.8, 1.0])
