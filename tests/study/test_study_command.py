"""`fastbts study`: a folder of DICOM or NIfTI in, NIfTI, DICOM-SEG, SR and a report out."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts.labels import ED, ET, NCR
from fastbts.phantom.study import (
    FLAIR,
    SCANS,
    T1,
    T1CE,
    StudyCase,
    coarser,
    write_study,
)
from fastbts.results.saved import read_result
from fastbts.study.read_dicom import read_dicom
from fastbts.write.viewer.page import DATA
from fastbts.write.words import NO_NAME
from tests.cli.commands import run
from tests.conftest import write_voxel_engine
from tests.study.made import head, write_four, write_series
from tests.study.whole import (
    MM,
    write_fake_brain_engine,
    write_fake_tumour_engine,
    write_nifti,
)
from tests.write.result_files import contents
from tests.write.test_dicom import check_standard, voxels_of

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
pytest.importorskip("highdicom", reason="needs fastbts[dicom]")

FILES = ["report.json", "seg.dcm", "seg.nii.gz", "sr.dcm"]
SHOWN = ["--preview", "--html"]


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 mm a study takes five seconds."""
    monkeypatch.setattr("fastbts.study.grid.WORKING_MM", 5.0)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Options of the command for both fakes."""
    folder: Path = tmp_path_factory.mktemp("engines")
    tumour = write_fake_tumour_engine(folder / "tumour.fbts")
    brain = write_fake_brain_engine(folder / "brain.fbts")
    return ["--engine", tumour, "--brain-engine", brain]


@pytest.fixture(scope="session")
def saved(
    study: StudyCase, engines: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of results, and what the command said."""
    out: Path = tmp_path_factory.mktemp("results") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastbts.study.grid.WORKING_MM", 5.0)
        code, output = run("study", study.folder, "-o", out, *SHOWN, "--nrrd", *engines)
    assert code == 0, output
    return out, output


def numbers(labels: np.ndarray) -> np.ndarray:
    """Numbers of the segments -> labels."""
    return np.array([0, NCR, ED, ET], np.uint8)[labels]


def test_all_forms_of_a_result_are_written(saved: tuple[Path, str]) -> None:
    out, output = saved
    names = [*FILES, "preview.png", "viewer.html", "seg.seg.nrrd"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    report = json.loads((out / "report.json").read_bytes())
    assert sorted(report["files"]) == sorted(set(names) - {"report.json"})
    assert "ax t2_tirm_tra_dark-fluid" in output
    assert "registered t2 to t1ce: moved" in output
    assert "brain 15" in output
    assert "write" in output
    assert f"wrote {out / 'seg.nii.gz'}" in output
    steps = ["read", "choose", "register", "strip", "segment", "back", "total", "write"]
    assert list(report["timings_ms"]) == steps
    assert [row["used_as"] for row in report["study"]["series"]].count(None) == len(SCANS) - 4


def test_the_result_has_a_date_and_no_name(saved: tuple[Path, str]) -> None:
    """For a follow-up; the page shows the reference series and the others on its grid."""
    out, _ = saved
    assert read_result(out).date == date(2026, 1, 2)
    page = (out / "viewer.html").read_text()
    assert f"<h1>{NO_NAME}</h1>" in page
    images = json.loads(page.partition(DATA)[2].partition("</script>")[0])[0]["images"]
    assert {*images} == {"t1ce", "flair"}


def test_dicom_holds_the_labels_of_the_nifti(saved: tuple[Path, str], study: StudyCase) -> None:
    out, _ = saved
    (t1ce,) = (s for s in read_dicom(study.folder).series if s.name == T1CE.text)
    image = nib.load(out / "seg.nii.gz")
    np.testing.assert_allclose(image.affine, t1ce.geometry.affine, atol=1e-4)
    labels = np.asarray(image.dataobj)
    assert len(np.unique(labels)) == 4
    np.testing.assert_array_equal(numbers(voxels_of(out / "seg.dcm", t1ce)), labels)


def test_slicer_reads_the_same_labels(saved: tuple[Path, str]) -> None:
    nrrd = pytest.importorskip("nrrd", reason="needs fastbts[nrrd]")
    out, _ = saved
    labels, header = nrrd.read(str(out / "seg.seg.nrrd"))
    image = nib.load(out / "seg.nii.gz")
    np.testing.assert_array_equal(labels, np.asarray(image.dataobj))
    lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
    np.testing.assert_allclose(header["space origin"], lps[:3, 3], atol=1e-4)


def test_the_report_for_the_pacs_refers_to_the_segments(saved: tuple[Path, str]) -> None:
    out, _ = saved
    seg, sr = (pydicom.dcmread(out / name) for name in ("seg.dcm", "sr.dcm"))
    assert sr.StudyInstanceUID == seg.StudyInstanceUID
    assert seg.SOPInstanceUID in str(sr)
    wt = json.loads((out / "report.json").read_bytes())["volumes_ml"]["WT"]
    assert f"{wt:.1f}"[:-1] in str(sr)


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
def test_objects_keep_the_standard(saved: tuple[Path, str], name: str) -> None:
    check_standard(saved[0] / name)


def test_results_verify(saved: tuple[Path, str], engines: list[Any]) -> None:
    code, output = run("verify", saved[0], *engines[:2])
    assert code == 0, output
    assert "seg.dcm" in output


def test_a_second_run_replaces_the_first(
    study: StudyCase, engines: list[Any], tmp_path: Path
) -> None:
    """Also where the results are in the folder of the study, and although files are left out."""
    options = ["study", study.folder, "-o", tmp_path, "--no-register", "--no-strip", *engines[:2]]
    assert run(*options, "--nrrd", "--preview")[0] == 0
    code, output = run(*options, "--fractional")
    assert code == 0, output
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentationType == "FRACTIONAL"
    check_standard(tmp_path / "seg.dcm")
    assert "not registered: it was asked for" in output
    assert "removed" in output


def test_files_of_others_stay(study: StudyCase, engines: list[Any], tmp_path: Path) -> None:
    (tmp_path / "sr.dcm").write_text("mine")
    options = ["study", study.folder, "-o", tmp_path, "--no-register", "--no-strip", *engines[:2]]
    before = contents(tmp_path)
    code, output = run(*options)
    assert code == 1
    assert "sr.dcm: exists, and fastbts did not write it" in output
    assert contents(tmp_path) == before
    assert run(*options, "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_no_input_is_overwritten(study: StudyCase, engines: list[Any], tmp_path: Path) -> None:
    paths = write_nifti(tmp_path, study.folder)
    t2 = paths[3].rename(tmp_path / "seg.nii.gz")
    before = contents(tmp_path)
    options = ["-o", tmp_path, "--no-register", "--no-strip", "--overwrite", *engines[:2]]
    code, output = run("study", *paths[:3], t2, "--t2", "seg", *options)
    assert code == 1, output
    assert "seg.nii.gz: is an input of this case and would be overwritten" in output
    assert contents(tmp_path) == before


def test_nifti_needs_no_dicom(study: StudyCase, engines: list[Any], tmp_path: Path) -> None:
    write_nifti(tmp_path / "raw", study.folder)
    code, output = run("study", tmp_path / "raw", "-o", tmp_path / "out", *engines)
    assert code == 0, output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("report.json", "seg.nii.gz")
    ]
    again = run("study", tmp_path / "raw", "-o", tmp_path / "seg.seg.nrrd", *engines)
    assert again[0] == 0, again[1]
    assert (tmp_path / "seg.seg.nrrd").is_file()
    assert (tmp_path / "seg.seg.nrrd.json").is_file()


def test_results_may_be_in_the_folder_of_the_study(
    study: StudyCase, engines: list[Any], tmp_path: Path
) -> None:
    """They are no series of the next run."""
    options = ["--no-register", "--no-strip", "--nrrd", *engines[:2]]
    for folder in (shutil.copytree(study.folder, tmp_path / "dicom"), tmp_path / "nifti"):
        if folder.name == "nifti":
            write_nifti(folder, study.folder)
        for _ in range(2):
            code, output = run("study", folder, "-o", folder / "out", *options)
            assert code == 0, output


def test_what_cannot_be_written_is_said_before_the_work(
    study: StudyCase, engines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbts.study.study.Segmenter.predict", None)
    write_nifti(tmp_path, study.folder)
    options = ["--no-register", "--no-strip", *engines[:2]]
    code, output = run("study", tmp_path, "-o", tmp_path / "seg.dcm", *options)
    assert code == 2
    assert "seg.dcm: this result is not on a DICOM series" in output
    monkeypatch.setitem(sys.modules, "nrrd", None)
    code, output = run("study", study.folder, "-o", tmp_path / "out", "--nrrd", *options)
    assert code == 1
    assert "nrrd is not installed; install it with: pip install 'fastbts[nrrd]'" in output
    assert not (tmp_path / "out").exists()


def test_without_highdicom_the_labels_are_written_as_nifti(
    study: StudyCase, engines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbts.cli.study.find_spec", lambda name: None)
    options = ["--no-register", "--no-strip", *engines[:2]]
    code, output = run("study", study.folder, "-o", tmp_path, *options)
    assert code == 0, output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "seg.nii.gz"]
    assert "seg.dcm and sr.dcm were not written: highdicom is not installed" in output


def test_other_regions_are_written_as_nifti(
    study: StudyCase, engines: list[Any], tmp_path: Path
) -> None:
    """DICOM's codes are for WT, TC and ET; the command says so before the work where it can."""
    other = {"regions": ("lesion", "core", "rim"), "labels": ((1, 2, 3), (1, 3), (3,))}
    engine = write_voxel_engine(tmp_path / "lesions.fbts", spacing_mm=MM, **other)
    options = ["--no-register", "--no-strip", *engines[2:], "--engine", engine]
    code, output = run("study", study.folder, "-o", tmp_path / "out", *options)
    assert code == 0, output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "seg.nii.gz"}
    assert "seg.dcm and sr.dcm were not written: they are for WT, TC and ET, and voxel" in output
    for wrong in (["-o", tmp_path / "x.dcm"], ["--nrrd"], ["--labels", "brats2023"]):
        code, output = run("study", study.folder, "-o", tmp_path / "x", *options, *wrong)
        assert code == 2
        assert "expected WT, TC and ET, this result has the regions lesion, core, rim" in output
        assert not (tmp_path / "x").exists()


def test_without_a_tumour_there_is_no_segmentation(
    study: StudyCase, engines: list[Any], tmp_path: Path
) -> None:
    """An earlier one is removed."""
    options = ["study", study.folder, "-o", tmp_path, "--no-register", "--no-strip", *engines[:2]]
    assert run(*options)[0] == 0
    code, output = run(*options, "--min-part-mm3", 1e9)
    assert code == 0, output
    assert "no tumour was found: no DICOM segmentation was written" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("report.json", "seg.nii.gz", "sr.dcm")
    ]
    check_standard(tmp_path / "sr.dcm")
    code, output = run(*options, "--min-part-mm3", 1e9, "-o", tmp_path / "alone.dcm")
    assert code == 2
    assert "alone.dcm: no voxel is tumour" in output


def test_nothing_is_written_when_it_is_stopped(
    study: StudyCase, engines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    for step in ("study.align.register", "study.study.on_reference", "segmentation.write_dicom_sr"):
        with monkeypatch.context() as patch:
            patch.setattr(f"fastbts.{step}", stop)
            code, _ = run("study", study.folder, "-o", tmp_path / "out", *engines)
        assert code != 0, step
        assert not list(tmp_path.rglob("*.*")), step


WRONG = {
    "no FLAIR": "study: no series for flair; got",
    "two patients": "study: images of 2 patients; expected one",
    "a CT": "CT, not a magnetic resonance image",
    "5 slices": "5 slices, at least 12 are needed",
    "frames in one series": "slices in 2 frames of reference, whose positions cannot be compared",
    "two studies": "study: 2 studies of the patient",
    "empty": "study: none of 0 files is a DICOM or NIfTI image",
}


def write_wrong(kind: str, folder: Path) -> None:
    """A study of four good series, but for one fault."""
    folder.mkdir()
    if kind == "empty":
        return
    files = write_four(folder)
    if kind == "two patients":
        write_series(folder / "more", T1, 9, header={"PatientID": "other"})
    elif kind == "two studies":
        write_series(folder / "more", T1, 9, header={"StudyInstanceUID": "1.2.3"})
    else:
        for path in files["flair"]:
            path.unlink()
    if kind == "a CT":
        write_series(folder, FLAIR, 9, header={"Modality": "CT"})
    elif kind == "5 slices":
        write_series(folder, FLAIR, 9, 5)
    elif kind == "frames in one series":
        write_series(folder, FLAIR, 9, change=lambda n: {"FrameOfReferenceUID": f"1.2.{n % 2}"})


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_studies_are_one_clear_error(kind: str, tmp_path: Path, engines: list[Any]) -> None:
    write_wrong(kind, tmp_path / "study")
    code, output = run("study", tmp_path / "study", "-o", tmp_path / "out", *engines)
    assert code == 1
    assert WRONG[kind] in " ".join(output.split())
    assert output.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_headers_that_allow_no_dicom_are_found_before_the_work(
    engines: list[Any], tmp_path: Path
) -> None:
    no_frame = [replace(s, header={"FrameOfReferenceUID": None}) for s in coarser(SCANS, 5)]
    write_study(head(), tmp_path / "study", no_frame)
    options = ["--no-register", "--no-strip", *engines[:2]]
    code, output = run("study", tmp_path / "study", "-o", tmp_path / "out", *options)
    assert code == 1
    assert "has no FrameOfReferenceUID, so a result cannot be placed on it" in output
    assert "not registered" not in output
    code, output = run("study", tmp_path / "study", "-o", tmp_path / "out" / "seg.nii.gz", *options)
    assert code == 0, output


def test_series_can_be_named(study: StudyCase, engines: list[Any], tmp_path: Path) -> None:
    options = ["-o", tmp_path / "out", "--no-register", "--no-strip", *engines[:2]]
    code, output = run("study", study.folder, "--t2", "ep2d", *options)
    assert code == 0, output
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    used = {row["used_as"]: row["series"] for row in report["study"]["series"]}
    assert used["t2"].startswith("ep2d_diff_b1000")
    code, output = run("study", study.folder, "--t2", "none", *options)
    assert code == 1
    assert "t2: no series match 'none'; expected one of" in output


def test_a_dicom_name_is_refused_for_a_plain_case(
    study: StudyCase, engines: list[Any], tmp_path: Path
) -> None:
    """Before anything is read."""
    options = zip(
        ("--flair", "--t1", "--t1ce", "--t2"), write_nifti(tmp_path, study.folder), strict=True
    )
    named = [word for pair in options for word in pair]
    code, output = run("predict", *named, "-o", tmp_path / "seg.dcm", *engines[:2])
    assert code == 2
    assert "seg.dcm: this result is not on a DICOM series" in output
    assert not (tmp_path / "seg.dcm").exists()
