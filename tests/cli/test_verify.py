"""`fastbts verify`, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import fastbts
from fastbts.cli import app
from fastbts.cli.verify import verify_result
from fastbts.engine.file import pack_engine, read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case
from fastbts.spec import EngineSpec
from tests.conftest import VoxelEngine


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    engine = VoxelEngine()
    engine.description["sha256"] = read_engine_file(default_engine_path()).sha256
    segmenter = fastbts.Segmenter(engine, warm_up=False)
    result = segmenter.predict(make_case(3, shape=(64, 64, 48)).volume)

    def save(scheme: str = "brats2021") -> Path:
        folder = tmp_path_factory.mktemp("result")
        result.save(folder / "seg.nii.gz", labels=scheme, sidecar=folder / "report.json")
        return folder

    save.result = result  # type: ignore[attr-defined]
    return save


@pytest.mark.parametrize("scheme", ["brats2021", "brats2023", "regions"])
def test_unchanged_result_passes(saved: Callable[[str], Path], scheme: str) -> None:
    code, output = run("verify", saved(scheme))
    assert code == 0, output
    assert "volumes" in output


def _change_label(folder: Path) -> None:
    image = nib.load(folder / "seg.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[5:9, 5:9, 5:9] = 1
    nib.Nifti1Image(data, image.affine, image.header).to_filename(folder / "seg.nii.gz")


def _move_grid(folder: Path) -> None:
    image = nib.load(folder / "seg.nii.gz")
    nib.Nifti1Image(
        np.asarray(image.dataobj).copy()[::-1][1:], np.diag([1.0, 1, 2, 1])
    ).to_filename(folder / "seg.nii.gz")


def _remove(folder: Path) -> None:
    (folder / "seg.nii.gz").unlink()


def _truncate(folder: Path) -> None:
    image = folder / "seg.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])


def _write_garbage(folder: Path) -> None:
    (folder / "seg.nii.gz").write_bytes(b"no image" * 99)


def _damage_gzip(folder: Path) -> None:
    image = folder / "seg.nii.gz"
    image.write_bytes(image.read_bytes()[:-8] + bytes(8))


def _edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    report = json.loads((folder / "report.json").read_text())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_change_label, "the report says"),
        (_move_grid, "the input had"),
        (_truncate, "the gzip stream ends early"),
        (_damage_gzip, "damaged gzip stream"),
        (_write_garbage, "expected a NIfTI image, got a file that begins with b'no image'"),
        (_remove, "missing, but the report lists it"),
        (
            lambda f: _edit(f, lambda r: r["volumes_ml"].update(WT=1e9)),
            "the report says [1000000000.0",
        ),
        (
            lambda f: _edit(f, lambda r: r["engine"].update(sha256="0" * 64)),
            "give the engine that was used",
        ),
        (
            lambda f: _edit(f, lambda r: r.update(files_sha256={"../../passwd": ""})),
            "not in the report's folder",
        ),
        (lambda f: _edit(f, lambda r: r.pop("files_sha256")), "cannot be used"),
        (lambda f: _edit(f, lambda r: r.update(files_sha256={})), "cannot be used"),
        (lambda f: (f / "report.json").write_text("[1]"), "cannot be used"),
        (lambda f: (f / "report.json").write_text("[" * 99999), "cannot be used"),
        (lambda f: (f / "report.json").write_text("no json"), "cannot be used"),
    ],
)
def test_changes_are_found(
    saved: Callable[[], Path], damage: Callable[[Path], None], says: str
) -> None:
    folder = saved()
    damage(folder)
    code, output = run("verify", folder)
    assert code == 1
    assert says in output


@pytest.mark.parametrize("damage", [_truncate, _damage_gzip, _write_garbage, _remove])
def test_a_damaged_image_does_not_stop_the_other_checks(
    saved: Callable[[], Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for name in "ab":
        saved().rename(tmp_path / name)
    damage(tmp_path / "a")
    code, output = run("verify", tmp_path, "--json")
    assert code == 1
    checks = json.loads(output)
    n = len(checks) // 2
    assert [check["name"] for check in checks[:n]] == [check["name"] for check in checks[n:]]
    failed = {check["name"] for check in checks[:n] if not check["ok"]}
    assert {"seg.nii.gz", "volumes"} <= failed <= {"seg.nii.gz", "grid of seg.nii.gz", "volumes"}
    assert all(check["ok"] for check in checks[n:]), "the other folder is undamaged"


def test_another_engine_is_found(saved: Callable[[], Path], tmp_path: Path) -> None:
    (tmp_path / "other.fbts").write_bytes(pack_engine(EngineSpec(), {"model.onnx": b"x"}))
    checks = {c.name: c for c in verify_result(saved() / "report.json", tmp_path / "other.fbts")}
    assert [name for name, check in checks.items() if not check.ok] == ["engine"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["brats2023", "regions"])
def test_any_names(saved: Callable[[str], Path], tmp_path: Path, scheme: str) -> None:
    """Two results of `Segmentation.save` in one folder; a heading for each."""
    result = saved.result  # type: ignore[attr-defined]
    for stem in ("one.a", "two"):
        picture = tmp_path / f"{stem}.png"
        files = result.save(tmp_path / f"{stem}.nii.gz", labels=scheme, preview=picture)
    code, output = run("verify", tmp_path)
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == f"{tmp_path / 'one.a.json'}:"
    assert f"{tmp_path / 'two.json'}:" in lines
    assert any(line.startswith("ok  two.png ") for line in lines)
    for file in (files[0], files[-1]):
        code, output = run("verify", file)
        assert code == 0
        assert "two.png" in output
        assert "one.a" not in output
    (tmp_path / "one.a.png").write_bytes((tmp_path / "one.a.png").read_bytes() + b"x")
    assert run("verify", tmp_path)[0] == 1


def test_a_missing_report_is_told(saved: Callable[[], Path], tmp_path: Path) -> None:
    """A run that was killed while it wrote, alone and beside a whole result."""
    for name in "ab":
        saved().rename(tmp_path / name)
    (tmp_path / "a/report.json").unlink()
    for place in (tmp_path, tmp_path / "a", tmp_path / "a/seg.nii.gz"):
        code, output = run("verify", place)
        assert code == 1
        assert "no report lists this file: its run was stopped" in output
    rows = json.loads(run("verify", tmp_path, "--json")[1])
    assert [row["result"] for row in rows if not row["ok"]] == [str(tmp_path / "a/seg.nii.gz")]


def test_many_results_and_none(saved: Callable[[], Path], tmp_path: Path) -> None:
    for name in "ab":
        saved().rename(tmp_path / name)
    code, output = run("verify", tmp_path, "--json")
    assert code == 0
    assert sum(check["name"] == "volumes" for check in json.loads(output)) == 2
    (tmp_path / "empty").mkdir()
    code, output = run("verify", tmp_path / "empty")
    assert code == 1
    assert "no report.json" in output


def test_the_sform_made_from_a_qform_is_the_same_grid(tmp_path: Path) -> None:
    """Its spacing, from float32, rounds to another sixth digit than the voxel sizes."""
    images = make_case(3, shape=(40, 40, 32)).volume.data
    header = nib.Nifti1Header()
    header["qform_code"], header["quatern_b"], header["quatern_c"] = 1, 0.3, 0.2
    header["pixdim"][:4] = 1, 1.2300005, 1.5400005, 2.1700005
    folder = tmp_path / "out"
    case = {
        modality: nib.Nifti1Image(image, None, header)
        for modality, image in zip(fastbts.MODALITIES, images, strict=True)
    }
    result = fastbts.Segmenter(VoxelEngine(), warm_up=False).predict(**case)
    result.save(folder / "seg.nii.gz", sidecar=folder / "report.json")
    written = fastbts.Geometry(result.labels.shape, nib.load(folder / "seg.nii.gz").affine)
    expected = result.report["input"]["spacing_mm"]
    assert [round(step, 6) for step in written.spacing_mm] != expected, "the case is a hard one"
    (grid,) = [c for c in verify_result(folder / "report.json") if c.name == "grid of seg.nii.gz"]
    assert grid.ok, grid.detail
