"""Studies of NIfTI files, which need no extra."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts.errors import CaseError, InputError
from fastbts.phantom.study import T1
from fastbts.study.choose import choose
from fastbts.study.read import read_series
from fastbts.study.read_nifti import read_nifti
from tests.study.made import write_series

VOXELS = np.arange(30 * 30 * 20, dtype=np.int16).reshape(30, 30, 20)
AFFINE = np.diag([-7.0, -7, 7, 1])


def write(path: Path, **sidecar: object) -> Path:
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), path)
    if sidecar:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def no_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)


@pytest.mark.usefixtures("no_pydicom")
def test_four_images_chosen_by_their_names(tmp_path: Path) -> None:
    for name in ("3_ax_flair", "1_t1_pre", "4_t1_post", "2_t2_tse"):
        write(tmp_path / f"{name}.nii.gz")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "._1_t1.nii.gz").write_text("of a Mac")
    found = read_series(tmp_path)
    assert found.n_others == 2
    assert {m: s.name for m, s in choose(found).series.items()} == {
        "flair": "3_ax_flair", "t1": "1_t1_pre", "t1ce": "4_t1_post", "t2": "2_t2_tse",
    }  # fmt: skip
    series = found.series[0]
    assert np.array_equal(series.voxels, VOXELS)
    np.testing.assert_array_equal(series.geometry.affine, AFFINE)
    assert (series.source, series.n_slices, series.orientation) == ("nifti", 20, "tra")


def test_a_sidecar_knows_the_times(tmp_path: Path) -> None:
    """dcm2niix gives seconds, and its names are often of no use."""
    write(tmp_path / "a.nii.gz", EchoTime=0.093, RepetitionTime=9, InversionTime=2.5,
          ScanningSequence="SE_IR", SeriesDescription="ax dark-fluid", SeriesNumber=7,
          ContrastBolusIngredient="GADOLINIUM", ImageType=["ORIGINAL", "PRIMARY"])  # fmt: skip
    facts = read_nifti(tmp_path).series[0].facts
    assert (facts.te_ms, facts.tr_ms, facts.ti_ms) == pytest.approx((93, 9000, 2500))
    assert facts.sequence == ("SE", "IR")
    assert facts.texts == ("a", "ax dark-fluid")
    assert facts.contrast_agent == "GADOLINIUM"
    assert facts.acquired == ("", 7.0)
    assert not facts.is_derived


@pytest.mark.parametrize(
    "content", [b"[1]", b"{", b'{"EchoTime": "long"}', b'{"EchoTime": true}', b"\xff"]
)
def test_a_sidecar_that_is_none(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path / "a.nii").with_suffix(".json")).write_bytes(content)
    assert read_nifti(tmp_path).series[0].facts.te_ms is None


def test_damaged_files_are_refused_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "t2.nii")
    (tmp_path / "t1.nii.gz").write_bytes(b"no image")
    found = read_nifti(tmp_path)
    assert [s.name for s in found.series] == ["t2"]
    (refused,) = found.refused
    assert refused.name == "t1"
    assert str(tmp_path) not in refused.why


def test_links_to_nowhere_and_images_over_time_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "t2.nii")
    (tmp_path / "t1.nii.gz").symlink_to(tmp_path / "annex" / "Doe_Jane.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([VOXELS] * 5, -1), AFFINE), tmp_path / "perf.nii")
    found = read_series(tmp_path)
    assert [s.name for s in found.series] == ["t2"]
    assert [(r.name, r.why) for r in found.refused] == [
        ("perf", "5 images in one file: perfusion, diffusion or function"),
        ("t1", "a link to a file that is not there: get it first (git annex get)"),
    ]


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CaseError, match="none of 1 files is a DICOM or NIfTI image"):
        read_series(tmp_path)
    with pytest.raises(CaseError, match="none of 1 files is a NIfTI image"):
        read_nifti(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_series(tmp_path / "nowhere")


def test_dicom_is_read_before_nifti(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
    write_series(tmp_path, T1)
    write(tmp_path / "seg.nii.gz")
    found = read_series(tmp_path)
    assert [s.name for s in found.series] == [T1.text]
    assert found.n_others == 1


def test_dicom_without_images_is_no_study(tmp_path: Path) -> None:
    """A report of DICOM, or a file that only begins like one, beside NIfTI images."""
    pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
    (path, *_) = write_series(tmp_path / "sr", T1)
    dataset = pydicom.dcmread(path)
    del dataset.Rows, dataset.Columns, dataset.PixelData
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComprehensiveSRStorage
    dataset.save_as(tmp_path / "sr.dcm")
    shutil.rmtree(tmp_path / "sr")
    (tmp_path / "table.bin").write_bytes(b"\x08\x00" * 100)
    write(tmp_path / "t1.nii.gz")
    assert [s.source for s in read_series(tmp_path).series] == ["nifti"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("sub-01_T1w", "sub-02_FLAIR"), "subject"),
        (("sub-01_ses-a_T1w", "sub-01_ses-b_FLAIR"), "session"),
    ],
)
def test_two_subjects_or_sessions(tmp_path: Path, names: tuple[str, str], kind: str) -> None:
    for name in names:
        write(tmp_path / f"{name}.nii")
    with pytest.raises(CaseError, match=f"images of 2 {kind}s; expected one; give the files of o"):
        read_nifti(tmp_path)


def test_two_patients_by_the_sidecars(tmp_path: Path) -> None:
    write(tmp_path / "t1.nii", PatientID="SECRET1")
    write(tmp_path / "t2.nii", PatientID="SECRET2")
    write(tmp_path / "flair.nii")
    with pytest.raises(CaseError, match="images of 2 patients") as raised:
        read_nifti(tmp_path)
    assert "SECRET" not in str(raised.value)
