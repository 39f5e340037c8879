"""The README's commands: a trained checkpoint becomes an engine, is built, and segments a case."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import MODALITIES, Segmenter, load_engine, read_case
from fastbts.cli import app
from fastbts.engine.file import read_engine_file
from tests.training import commands
from training.config import load_recipe
from training.data.cases import TrainingCase
from training.loop.checkpoint import load_checkpoint
from training.train import fit

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "python -m training export CHECKPOINT -o model.fbts",
    "fastbts build model.fbts -o",
    "fastbts predict CASE_FOLDER",
)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module", params=["smoke", "smoke-clip"])
def engine(
    request: pytest.FixtureRequest,
    phantoms: Path,
    cases: list[TrainingCase],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A network after a few steps, as an engine file beside its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    fit(load_recipe(request.param), cases, folder)
    checkpoint, path = folder / "last.ckpt", folder / "model.fbts"
    about = ("--note", "two phantoms", "--case", phantoms / "case1", "--license", "test")
    assert commands.run("export", checkpoint, "-o", path, *about) == 0
    return path


with_mechanisms = pytest.mark.parametrize("engine", ["smoke-clip"], indirect=True)


@pytest.fixture(scope="module")
def int8(engine: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantized by NNCF. --accept-parity: the labels of an untrained network are rounding."""
    pytest.importorskip("nncf", reason="int8 needs the extra [quantize]")
    path = tmp_path_factory.mktemp("int8") / "int8.fbts"
    options = ("--precision", "int8", "--calibrate", phantoms / "case1", "--accept-parity")
    run("build", engine, "-o", path, *options)
    return path


def test_a_document_shows_the_three_commands() -> None:
    text = re.sub(r" +", " ", (ROOT / "docs/how-to/build-engines.md").read_text())
    for command in COMMANDS:
        assert command in text


def test_an_engine_has_parity_and_a_record_of_its_training(engine: Path) -> None:
    file, recipe = read_engine_file(engine), load_checkpoint(engine.parent / "last.ckpt")[0]
    parity, training = file.manifest["parity"], file.manifest["training"]
    assert parity["input"] == "case1"
    assert parity["max_logit_difference"] < 1e-3
    assert parity["label_agreement"] > 0.999, "logits are near 0, where rounding decides"
    assert training["recipe"]["name"] == recipe.name
    assert training["steps"] == recipe.steps == 6
    assert len(training["loss_per_100_steps"]) == 1
    assert training["note"] == "two phantoms"
    semantic = recipe.name == "smoke-clip"
    assert file.spec.optional_modalities == (MODALITIES if semantic else ())
    encoder = "orthonormal prompts, not CLIP" if semantic else None
    assert file.manifest.get("prompts", {}).get("encoder") == encoder


def test_an_engine_has_no_path_of_its_machine(engine: Path) -> None:
    content = engine.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"stack_trace" not in content


def test_an_exported_engine_predicts(engine: Path, phantoms: Path) -> None:
    result = Segmenter(engine, precision="fp32").predict(read_case(phantoms / "case1"))
    assert result.labels.shape == (64, 64, 48)
    assert set(np.unique(result.labels)) <= {0, 1, 2, 4}


@with_mechanisms
def test_int8_from_checkpoint_to_labels(int8: Path, phantoms: Path, tmp_path: Path) -> None:
    case = phantoms / "case1"
    run("predict", case, "-o", tmp_path, "--engine", int8)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["engine"]["precision"] == "int8", "the built precision is the default"
    labels = np.asarray(nib.load(tmp_path / "seg.nii.gz").dataobj)
    predicted = Segmenter(int8, warm_up=False).predict(read_case(case)).labels
    np.testing.assert_array_equal(labels, predicted)


@with_mechanisms
def test_int8_keeps_its_text_input(engine: Path, int8: Path) -> None:
    small, full = load_engine(int8), load_engine(engine, precision="fp32")
    assert small.text is not None
    np.testing.assert_array_equal(small.text, full.text)
    x = np.random.default_rng(0).standard_normal((1, 4, 64, 64, 64), np.float32)
    logits, exact = small.infer(x), full.infer(x)
    assert np.abs(logits - exact).max() < 0.1 * np.abs(exact).max() + 0.1


@with_mechanisms
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_float32_is_built_from_onnx_and_engine_alike(
    engine: Path, phantoms: Path, tmp_path: Path, backend: str
) -> None:
    onnx, out = tmp_path / "model.onnx", tmp_path / "out.fbts"
    onnx.write_bytes(read_engine_file(engine).payloads["model.onnx"])
    for source in (engine, onnx):
        options = ("--backend", backend, "--calibrate", phantoms / "case1")
        assert "label_agreement 1" in run("build", source, "-o", out, *options)
        built = read_engine_file(out)
        assert built.manifest["build"]["backend"] == backend
        assert built.manifest["build"]["parity"]["max_logit_difference"] < 1e-3
        assert built.spec == read_engine_file(engine).spec
        assert load_engine(out).description["backend"] == backend
