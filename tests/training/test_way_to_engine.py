"""The README's three commands: a checkpoint becomes an engine, is built, and segments a case."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import Segmenter, load_engine, read_case
from fastbts.cli import app
from fastbts.engine.file import read_engine_file
from training.config import load_recipe
from training.loop.checkpoint import save_checkpoint
from training.loop.module import TrainingModule

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "python -m training export CHECKPOINT -o model.fbts",
    "fastbts build model.fbts -o",
    "fastbts predict CASE_FOLDER",
)


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def case(
    tmp_path_factory: pytest.TempPathFactory, write_small_case: Callable[[int, Path], None]
) -> Path:
    folder = tmp_path_factory.mktemp("case")
    write_small_case(1, folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first command, in its own process: an untrained network with every mechanism."""
    folder = tmp_path_factory.mktemp("model")
    module = TrainingModule(load_recipe("smoke-clip"))
    assert module.prompts is not None
    weights = module.network.state_dict()
    save_checkpoint(
        folder / "last.ckpt", module.recipe, 0, average=weights, prompts=module.prompts.about()
    )
    command = [
        sys.executable,
        "-m",
        "training",
        "export",
        str(folder / "last.ckpt"),
        "-o",
        str(folder / "model.fbts"),
    ]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return folder / "model.fbts"


def test_the_readme_shows_the_three_commands() -> None:
    text = re.sub(r" +", " ", (ROOT / "README.md").read_text())
    for command in COMMANDS:
        assert command in text


def test_int8_from_checkpoint_to_labels(exported: Path, case: Path, tmp_path: Path) -> None:
    """NNCF quantizes the semantic network. --accept-parity: rounding decides its labels."""
    pytest.importorskip("nncf", reason="int8 needs the extra [quantize]")
    engine = tmp_path / "int8.fbts"
    run(
        "build",
        exported,
        "-o",
        engine,
        "--precision",
        "int8",
        "--calibrate",
        case,
        "--accept-parity",
    )
    run("predict", case, "-o", tmp_path / "out", "--engine", engine)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["engine"]["precision"] == "int8", "the built precision is the default"
    labels, result = (
        nib.load(tmp_path / "out/seg.nii.gz"),
        Segmenter(engine, warm_up=False).predict(read_case(case)),
    )
    np.testing.assert_array_equal(np.asarray(labels.dataobj), result.labels)


def test_int8_keeps_its_text_input(exported: Path, case: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="int8 needs the extra [quantize]")
    run(
        "build",
        exported,
        "-o",
        tmp_path / "int8.fbts",
        "--precision",
        "int8",
        "--calibrate",
        case,
        "--accept-parity",
    )
    small, whole = load_engine(tmp_path / "int8.fbts"), load_engine(exported, precision="fp32")
    assert small.text is not None
    np.testing.assert_array_equal(small.text, whole.text)
    x = np.random.default_rng(0).standard_normal((1, 4, 64, 64, 64), np.float32)
    assert np.abs(small.infer(x) - whole.infer(x)).max() < 0.1 * np.abs(whole.infer(x)).max() + 0.1


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_float32_is_built_from_onnx_and_engine_alike(
    exported: Path, case: Path, tmp_path: Path, backend: str
) -> None:
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(read_engine_file(exported).payloads["model.onnx"])
    for source in (exported, onnx):
        output = run(
            "build", source, "-o", tmp_path / "out.fbts", "--backend", backend, "--calibrate", case
        )
        assert "label_agreement 1" in output
        built = read_engine_file(tmp_path / "out.fbts")
        assert built.manifest["build"]["backend"] == backend
        assert built.manifest["build"]["parity"]["max_logit_difference"] < 1e-3
        assert built.spec == read_engine_file(exported).spec
        assert load_engine(tmp_path / "out.fbts").description["backend"] == backend
