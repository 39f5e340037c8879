"""What a result is saved as: kinds by name, several of one result, all or none of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts import OptionsError, Segmentation, Segmenter
from fastbts.write.kinds import Kind, kind_of, sidecar_of
from tests.write.result_files import contents

pytest.importorskip("nrrd", reason="needs fastbts[nrrd]")


@pytest.fixture
def result(voxel_segmenter: Segmenter, small_case: tuple[np.ndarray, np.ndarray]) -> Segmentation:
    return voxel_segmenter.predict(small_case[0], affine=small_case[1])


@pytest.mark.parametrize(
    ("name", "kind", "sidecar"),
    [
        ("seg.nii.gz", Kind.NIFTI, "seg.json"),
        ("SEG.NII", Kind.NIFTI, "SEG.json"),
        ("seg.seg.nrrd", Kind.NRRD, "seg.seg.nrrd.json"),
        ("seg.dcm", Kind.SEG, "seg.dcm.json"),
        ("user.dcm", Kind.SEG, "user.dcm.json"),
        ("sr.dcm", Kind.SR, "sr.dcm.json"),
        ("case.sr.dcm", Kind.SR, "case.sr.dcm.json"),
        ("case_SR.dcm", Kind.SR, "case_SR.dcm.json"),
    ],
)
def test_the_name_says_the_kind(name: str, kind: Kind, sidecar: str) -> None:
    assert kind_of(name) is kind
    assert sidecar_of(Path("a", name)) == Path("a", sidecar)


@pytest.mark.parametrize("name", ["seg.nrrd", "seg.mha", "seg", ".dcm", ".seg.nrrd"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(OptionsError, match=r"expected a name that ends in .nii.gz, .nii, .seg"):
        kind_of(name)


def test_forms_saved_one_by_one_stay_beside_each_other(
    result: Segmentation, tmp_path: Path
) -> None:
    result.save(tmp_path / "x.nii.gz")
    result.save(tmp_path / "x.seg.nrrd")
    result.save(tmp_path / "x.seg.nrrd")  # replaces the same
    assert list(contents(tmp_path)) == [*("x.json", "x.nii.gz", "x.seg.nrrd", "x.seg.nrrd.json")]


def test_forms_saved_together_are_one_set(result: Segmentation, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("x.nii.gz", "x.seg.nrrd")]
    written = result.save(paths, labels="regions")
    report = json.loads((tmp_path / "x.json").read_bytes())
    assert sorted(report["files_sha256"]) == [
        *("x.seg.nrrd", "x_ET.nii.gz", "x_TC.nii.gz", "x_WT.nii.gz")
    ]
    assert sorted(path.name for path in written) == sorted([*report["files"], "x.json"])
    result.save(tmp_path / "x.nii.gz")
    assert list(contents(tmp_path)) == ["x.json", "x.nii.gz"], "the others were of that set"


def test_a_form_that_cannot_be_written_leaves_the_old_set(
    result: Segmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("x.nii.gz", "x.seg.nrrd")]
    result.save(paths)
    before = contents(tmp_path)

    def fails(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastbts.segmentation.write_nrrd", fails)
    with pytest.raises(KeyboardInterrupt):
        replace(result, labels=np.zeros_like(result.labels)).save(paths)
    assert contents(tmp_path) == before


def test_a_set_is_in_one_folder(result: Segmentation, tmp_path: Path) -> None:
    for paths in ([tmp_path / "a" / "x.nii.gz", tmp_path / "x.seg.nrrd"], []):
        with pytest.raises(OptionsError, match="expected one file, or several in one folder"):
            result.save(paths)


@pytest.mark.parametrize("name", ["x.dcm", "sr.dcm"])
def test_dicom_needs_a_dicom_series(result: Segmentation, tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionsError, match=f"{name}: this result is not on a DICOM series"):
        result.save([tmp_path / "x.nii.gz", tmp_path / name])
    assert not contents(tmp_path)


def test_inputs_are_not_overwritten(result: Segmentation, tmp_path: Path) -> None:
    given = tmp_path / "given.nii.gz"
    given.write_bytes(b"an image")
    with pytest.raises(OSError, match="is an input of this case and would be overwritten"):
        replace(result, inputs=(given,)).save(given, overwrite=True)
