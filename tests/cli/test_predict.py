"""`fastbts predict` and `demo` as a user runs them; in a process of its own where that matters."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts.engine.load import default_engine_path
from fastbts.labels import REGION_SCHEME, SCHEMES
from fastbts.options import MODES
from tests.cli.commands import image_of, run

MODALITIES = ("flair", "t1", "t1ce", "t2")


@pytest.mark.slow
def test_demo_writes_the_files_that_it_names(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "fastbts", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert str(out / "preview.png") in done.stdout
    assert (out / "preview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    labels, reference = (
        nib.load(out / "seg.nii.gz"),
        nib.load(next(out.glob("phantom*/*_seg.nii.gz"))),
    )
    np.testing.assert_array_equal(labels.affine, reference.affine)
    found, wanted = np.asarray(labels.dataobj) > 0, np.asarray(reference.dataobj) > 0
    # No measure of accuracy; a flipped, shifted or unnormalised pipeline is far below.
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.6
    report = json.loads((out / "report.json").read_text())
    assert report["volumes_ml"]["WT"] == pytest.approx(found.sum() / 1000)
    assert "not a medical device" in report["notice"]


@pytest.mark.slow
def test_predict_keeps_the_grid_and_prints_volumes(case: Path, tmp_path: Path) -> None:
    code, output = run("predict", case, "-o", tmp_path / "out", "--preview")
    assert code == 0, output
    assert "WT" in output
    saved, given = nib.load(tmp_path / "out/seg.nii.gz"), nib.load(image_of(case, "flair"))
    assert saved.shape == given.shape
    np.testing.assert_array_equal(saved.affine, given.affine)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "preview.png",
        "report.json",
        "seg.nii.gz",
    ]


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_predict_by_modality_equals_predict_by_folder(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    by_name = [x for m in MODALITIES for x in (f"--{m}", image_of(case, m))]
    for given, out in ([case], "a"), (by_name, "b"):
        assert run("predict", *given, "-o", tmp_path / out, "--engine", voxel_engine)[0] == 0
    one, two = (voxels(tmp_path / x / "seg.nii.gz") for x in "ab")
    assert one.any()
    np.testing.assert_array_equal(one, two)


def test_nnunet_names_need_their_order(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nnunet"
    folder.mkdir()
    for number, modality in enumerate(("t1", "t1ce", "t2", "flair")):
        shutil.copy(image_of(case, modality), folder / f"x_000{number}.nii.gz")
    named, numbered, engine = tmp_path / "a", tmp_path / "b", ("--engine", voxel_engine)
    assert run("predict", case, "-o", named, *engine)[0] == 0
    assert run("predict", folder, "-o", numbered, *engine)[0] == 1
    order = ("--nnunet-order", "t1,t1ce,t2,flair")
    assert run("predict", folder, "-o", numbered, *engine, *order)[0] == 0
    np.testing.assert_array_equal(*(voxels(out / "seg.nii.gz") for out in (named, numbered)))


def test_label_schemes(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    for scheme in ("brats2021", "brats2023", "regions"):
        out = ("-o", tmp_path / scheme, "--labels", scheme)
        assert run("predict", case, *out, "--engine", voxel_engine)[0] == 0
    old, new = (voxels(tmp_path / scheme / "seg.nii.gz") for scheme in ("brats2021", "brats2023"))
    assert set(np.unique(old)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(new, np.where(old == 4, 3, old))
    core = voxels(tmp_path / "regions/seg_TC.nii.gz")
    np.testing.assert_array_equal(core, np.isin(old, (1, 4)))
    assert run("predict", case, "-o", tmp_path / "x", "--labels", "mine")[0] == 2
    assert not (tmp_path / "x").exists()


def test_small_parts_become_background_on_request(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert run(*command, "--min-part-mm3", 1e9)[0] == 0
    assert not voxels(tmp_path / "out/seg.nii.gz").any()
    parts = json.loads((tmp_path / "out/report.json").read_text())["postprocessing"]["small_parts"]
    assert parts["n_parts_before"] > parts["n_parts_after"] == 0
    code, output = run(*command, "--min-part-mm3=-1")
    assert code == 2
    assert "min_part_mm3 -1.0: expected 0 (off) or a volume in mm3" in output


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_backend_is_chosen_by_name(
    case: Path, voxel_engine: Path, tmp_path: Path, backend: str
) -> None:
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    how = ("--backend", backend, "--device", "cpu", "--precision", "fp32", "--threads", 1)
    code, output = run(*command, *how)
    assert code == 0, output
    about = json.loads((tmp_path / "out/report.json").read_text())["engine"]
    assert (about["backend"], about["device"], about["precision"]) == (backend, "cpu", "fp32")


def test_sliding_mode_on_request(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert run(*command, "--mode", "sliding", "--overlap", 0.5)[0] == 0
    windows = json.loads((tmp_path / "out/report.json").read_text())["windows"]
    assert windows["mode"] == "sliding"
    assert windows["overlap"] == 0.5
    assert windows["count"] > 1


def test_trusted_key_requires_a_signature(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    assert run("keygen", tmp_path / "key")[0] == 0
    command = ("predict", case, "-o", tmp_path / "out", "--trusted-key", tmp_path / "key.pub")
    code, output = run(*command, "--engine", voxel_engine)
    assert code == 1
    assert output.count("error:") == 1
    assert "sign" in output
    signed = tmp_path / "signed.fbts"
    assert run("sign", voxel_engine, "--key", tmp_path / "key", "-o", signed)[0] == 0
    assert run(*command, "--engine", signed)[0] == 0


def test_help_names_all_schemes_and_modes() -> None:
    text = " ".join(run("predict", "--help")[1].replace("│", " ").split())
    for names in ([*SCHEMES, REGION_SCHEME], MODES):
        assert ", ".join(names) in text


def test_each_warning_is_shown_once(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    """In a process of its own, as the test runner catches what is logged."""
    _rewrite(case, "t1", lambda data, affine: (data + 1, affine))
    command = ["predict", case, "-o", tmp_path / "out", "--engine", voxel_engine]
    done = subprocess.run(
        [sys.executable, "-m", "fastbts", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"warning: {warning}"
        for warning in json.loads((tmp_path / "out/report.json").read_text())["warnings"]
    ]
    assert done.stderr.startswith("warning: t1: the background is 1 +- 0")
    assert "warning:" not in done.stdout


def _remove(case: Path) -> None:
    image_of(case, "t1ce").unlink()


def _truncate(case: Path) -> None:
    path = image_of(case, "t2")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _rewrite(case: Path, modality: str, change: Callable[..., Any]) -> None:
    path = image_of(case, modality)
    image = nib.load(path)
    data, affine = change(np.asarray(image.dataobj).astype(np.float32), image.affine.copy())
    nib.Nifti1Image(data, affine).to_filename(path)


def _other_shape(case: Path) -> None:
    _rewrite(case, "t1", lambda data, affine: (data[:-1], affine))


def _other_affine(case: Path) -> None:
    _rewrite(
        case,
        "t1",
        lambda data, affine: (data, affine + np.eye(4)[:, [3, 3, 3, 0]] * np.array([0, 0, 0, 3.0])),
    )


def _nan(case: Path) -> None:
    _rewrite(
        case,
        "flair",
        lambda data, affine: (np.where(data > np.percentile(data, 99.99), np.nan, data), affine),
    )


def _html(case: Path) -> None:
    image_of(case, "t1").write_bytes(gzip.compress(b"<html>not found</html>" * 100))


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (_remove, "t1ce"),
        (_truncate, "t2"),
        (_other_shape, "t1"),
        (_other_affine, "t1"),
        (_nan, "flair"),
        (_html, "t1"),
    ],
)
def test_bad_input_gives_one_error_and_no_output(
    case: Path, voxel_engine: Path, tmp_path: Path, damage: object, file: str
) -> None:
    damage(case)  # type: ignore[operator]
    code, output = run("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert code == 1
    assert output.count("error:") == 1
    assert file in output
    assert not list(tmp_path.glob("out/*")), "no output file"


def test_a_broken_engine_is_reported_once(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    """Whether its file is missing, or its backend refuses it once it is loading."""
    command = ("predict", case, shutil.copytree(case, tmp_path / "other"), "-o", tmp_path / "out")
    for engine in (("--engine", tmp_path / "none.fbts"), ("--engine", voxel_engine)):
        code, output = run(*command, *engine, "--precision", "fp16")
        assert code == 1
        assert output.count("error:") == 1


@pytest.mark.slow
def test_report_has_settings_and_timings(case: Path, tmp_path: Path) -> None:
    assert run("predict", case, "-o", tmp_path / "out", "--labels", "brats2023")[0] == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    stages = ["infer", "label", "normalize", "read", "total", "write"]
    assert sorted(set(report["timings_ms"]) - {"load"}) == stages
    assert report["timings_ms"]["total"] >= report["timings_ms"]["read"]
    assert report["timings_ms"]["read"] > 1
    assert report["label_scheme"] == "brats2023"
    extension = json.loads(
        nib.load(tmp_path / "out/seg.nii.gz").header.extensions[0].get_content().rstrip(b"\0")
    )
    assert extension["labels"] == {"NCR": 1, "ED": 2, "ET": 3}
    assert extension["provenance"]["label_scheme"] == "brats2023"
    assert (
        report["engine"]["sha256"] == hashlib.sha256(default_engine_path().read_bytes()).hexdigest()
    )
    assert report["engine"]["prompts"] == "orthonormal prompts, not CLIP"
    assert (
        report["input"]["sha256"]["t2"]
        == hashlib.sha256(image_of(case, "t2").read_bytes()).hexdigest()
    )


def test_one_of_many_cases_fails(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases, engine = (tmp_path / "empty", case), ("--engine", voxel_engine)
    code, output = run("predict", *cases, "-o", tmp_path / "out", *engine)
    assert code == 3
    assert output.count("error:") == 1
    assert (tmp_path / "out/case/seg.nii.gz").is_file()
    assert not (tmp_path / "out/empty/seg.nii.gz").exists()


def test_usage_errors(case: Path) -> None:
    assert run("predict")[0] == 2
    assert run("predict", case, "--flair", "x.nii")[0] == 2
    for images in (["adc"], ["=x.nii"], ["adc="], ["adc=x.nii", "--image=adc=y.nii"]):
        code, output = run("predict", "--image", *images)
        assert code == 2
        assert "expected NAME=FILE, each name once" in output
    for option, value in (
        ("--mode", "fast"),
        ("--overlap", "1"),
        ("--backend", "torch"),
        ("--device", "tpu"),
        ("--precision", "fp8"),
        ("--threads", "-1"),
        ("--threads", "100000"),
    ):
        assert run("predict", case, option, value)[0] == 2, option
