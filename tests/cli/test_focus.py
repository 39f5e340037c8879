"""Focus on the command line: put a finder in, look at it, predict with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import MODALITIES
from tests.cli.commands import run
from tests.conftest import write_voxel_engine, write_voxel_finder
from tests.pipeline.test_focus import AFFINE, head


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case folder with a small tumour."""
    folder = tmp_path / "case"
    folder.mkdir()
    for name, image in zip(MODALITIES, head((40, 51, 33)), strict=True):
        nib.Nifti1Image(image, AFFINE).to_filename(folder / f"x_{name}.nii.gz")
    return folder


def test_build_info_and_predict(case: Path, tmp_path: Path) -> None:
    plain, engine = write_voxel_engine(tmp_path / "plain.fbts"), tmp_path / "engine.fbts"
    finder = write_voxel_finder(tmp_path / "finder.fbts")
    code, output = run("build", plain, "-o", engine, "--finder", finder)
    assert (code, output) == (0, f"wrote {engine} with the finder voxel-finder\n")
    assert re.search(r"^finder +none$", run("info", plain)[1], re.M)
    shown = run("info", engine)[1]
    assert re.search(r"^finder +voxel-finder, at 2 mm from p = 0\.9, 0\.0 MB$", shown, re.M)
    assert json.loads(run("info", engine, "--json")[1])["finder"]["name"] == "voxel-finder"

    labels = []
    for options in ((), ("--focus",), ("--focus", "--passes", "2")):
        out = tmp_path / f"out{len(options)}"
        code, output = run("-v", "predict", case, "-o", out, "--engine", engine, *options)
        assert code == 0, output
        assert ("focus on " in output) == bool(options)
        labels.append(np.asarray(nib.load(out / "seg.nii.gz").dataobj))
        windows = json.loads((out / "report.json").read_text())["windows"]
        assert ("focus" in windows) == bool(options)
        assert run("verify", out, "--engine", engine)[0] == 0
    assert labels[0].any()
    assert all(np.array_equal(labels[0], others) for others in labels[1:])


def test_focus_without_a_finder_is_an_error(case: Path, tmp_path: Path) -> None:
    plain = write_voxel_engine(tmp_path / "plain.fbts")
    code, output = run("predict", case, "-o", tmp_path / "out", "--engine", plain, "--focus")
    assert code == 2
    assert "plain.fbts has no finder; put one in with `fastbts build ENGINE -o OUT" in output
    assert not (tmp_path / "out").exists()


def test_a_finder_is_put_in_alone(tmp_path: Path) -> None:
    plain = write_voxel_engine(tmp_path / "plain.fbts")
    out = ("-o", tmp_path / "out.fbts", "--finder", plain)
    code, output = run("build", plain, *out, "--precision", "fp32")
    assert code == 2
    assert "cannot be combined with other options of a build" in output
    code, output = run("build", plain, *out)
    assert code == 1
    assert "does not fit voxel" in output


@pytest.mark.parametrize("command", ["study", "listen"])
def test_other_commands_have_the_option(command: str) -> None:
    assert "--focus" in run(command, "--help")[1]
