"""`fastbts predict`: which cases a command line means, and what their results are called."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import MODALITIES
from fastbts.cli import app
from fastbts.phantom import make_case
from tests.conftest import write_voxel_engine

SUFFIXES = dict(zip(MODALITIES, ("FLAIR", "T1w", "ce-gd_T1w", "T2w"), strict=True))


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    return dict(zip(MODALITIES, make_case(3, shape=(40, 40, 32)).volume.data, strict=True))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts")


def predict(engine: Path, out: Path, *args: object) -> tuple[int, str]:
    command = ["predict", *args, "-o", out, "--engine", engine]
    result = CliRunner().invoke(app, [str(arg) for arg in command])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write(folder: Path, images: dict[str, np.ndarray], stem: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for modality, image in images.items():
        name = f"{stem}{SUFFIXES[modality]}.nii.gz"
        nib.Nifti1Image(image, np.diag([3.0, 3, 3, 1])).to_filename(folder / name)
    return folder


def labels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def results(out: Path) -> list[str]:
    return sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("seg.nii.gz"))


def test_bids_sessions_given_one_by_one_or_as_a_dataset(
    images: dict[str, np.ndarray], engine: Path, tmp_path: Path
) -> None:
    expected = ["sub-01_ses-01", "sub-01_ses-02", "sub-02_ses-01"]
    places = [
        write(tmp_path / "ds" / Path(*name.split("_")) / "anat", images, f"{name}_")
        for name in expected
    ]
    for given, out in ((places, tmp_path / "a"), ([tmp_path / "ds"], tmp_path / "b")):
        code, output = predict(engine, out, *given)
        assert code == 0, output
        assert results(out) == expected
    one, other = (labels(tmp_path / f"{x}/sub-01_ses-02/seg.nii.gz") for x in "ab")
    assert one.any()
    np.testing.assert_array_equal(one, other)


def test_a_folder_with_one_case_and_one_bad_case(
    images: dict[str, np.ndarray], engine: Path, tmp_path: Path
) -> None:
    write(tmp_path / "ds/good", images)
    write(tmp_path / "ds/bad", {"flair": images["flair"]})
    code, output = predict(engine, tmp_path / "out", tmp_path / "ds")
    assert code == 3
    assert results(tmp_path / "out") == ["good"]
    assert "bad: no file for t1, t1ce, t2" in " ".join(output.split())


def test_a_case_given_twice_is_refused(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    code, output = predict(engine, tmp_path / "out", tmp_path / "a", tmp_path / "a")
    assert code == 2
    assert "was given twice" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["file", "folder", "files", "folder of files"])
def test_4d_files(way: str, images: dict[str, np.ndarray], engine: Path, tmp_path: Path) -> None:
    order = ("t2", "t1ce", "flair", "t1")
    stack = np.stack([images[modality] for modality in order], -1)
    (tmp_path / "imagesTr").mkdir()
    n_files = 2 if "files" in way else 1
    paths = [tmp_path / f"imagesTr/BRATS_00{n}.nii.gz" for n in range(n_files)]
    for path in paths:
        nib.Nifti1Image(stack, np.diag([3.0, 3, 3, 1])).to_filename(path)
    given = [tmp_path / "imagesTr"] if "folder" in way else paths
    code, output = predict(engine, tmp_path / "out", *given, "--channels", ",".join(order))
    assert code == 0, output
    assert results(tmp_path / "out") == (["BRATS_000", "BRATS_001"] if n_files == 2 else ["."])
    predict(engine, tmp_path / "named", write(tmp_path / "case", images))
    got = labels(next((tmp_path / "out").rglob("seg.nii.gz")))
    np.testing.assert_array_equal(got, labels(tmp_path / "named/seg.nii.gz"))
    report = json.loads(next((tmp_path / "out").rglob("report.json")).read_text())
    assert len(report["input"]["sha256"]) == 4
    code, output = predict(engine, tmp_path / "x", *given)
    assert code == 1
    assert "--channels flair,t1,t1ce,t2" in output


def test_a_wrong_order_is_refused(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.Nifti1Image(np.zeros((5, 4, 3, 4), np.int16), np.eye(4)).to_filename(path)
    for order, message in (
        ("t1,t2", "a 4-D file of 2 volumes"),
        ("t1,pd", "expected names out of"),
    ):
        code, output = predict(engine, tmp_path / "out", path, "--channels", order)
        assert code > 0
        assert message in " ".join(output.split())


@pytest.mark.parametrize(
    ("n_cases", "n_threads", "free", "n"),
    [
        (1, 2, 10**11, 1),
        (12, 1, 10**11, 1),
        (12, 2, 10**11, 2),
        (12, 64, 4 * 10**9, 2),
        (12, 64, 3_900_000_000, 1),
        (12, 2, None, 1),
    ],
)
def test_two_of_several_cases_are_computed_at_once_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, n_cases: int, n_threads: int, free: int | None, n: int
) -> None:
    from fastbts.cli import predict as module

    monkeypatch.setattr(module, "free_bytes", lambda: free)
    assert module._parallel(n_cases, n_threads) == n


def test_results_do_not_depend_on_how_many_are_computed_at_once(
    images: dict[str, np.ndarray], engine: Path, tmp_path: Path
) -> None:
    for n in range(5):
        shifted = {name: np.roll(image, n, axis=0) for name, image in images.items()}
        write(tmp_path / f"ds/case{n}", shifted)
    (tmp_path / "out1/case2/seg.nii.gz").mkdir(parents=True)  # cannot be written
    for n in (1, 2, 3):
        code, output = predict(engine, tmp_path / f"out{n}", tmp_path / "ds", "--jobs", n)
        assert code == (1 if n == 1 else 0), output
    for case in results(tmp_path / "out2"):
        one, other = (labels(tmp_path / f"out{n}/{case}/seg.nii.gz") for n in (2, 3))
        np.testing.assert_array_equal(one, other)
    assert len(results(tmp_path / "out3")) == 5
