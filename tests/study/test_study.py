"""From a raw study to labels on its T1ce, in Python; with fakes for both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import fastbts
from fastbts import CaseError, GeometryError, InputError, Segmenter, Study
from fastbts.engine.load import load_engine
from fastbts.engine.signing import generate_keys
from fastbts.errors import EngineFileError
from fastbts.phantom.study import SCANS, T2, StudyCase, coarser, write_study
from fastbts.study.read import read_series
from tests.study.made import head
from tests.study.whole import (
    TEXTS,
    stripped_case,
    write_fake_brain_engine,
    write_fake_tumour_engine,
    write_nifti,
)

STEPS = ["read", "choose", "register", "strip", "segment", "back", "total"]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder: Path = tmp_path_factory.mktemp("engine")
    return Segmenter(write_fake_tumour_engine(folder / "tumour.fbts"), warm_up=False)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("engine")
    return load_engine(write_fake_brain_engine(folder / "brain.fbts"))


@pytest.fixture(scope="module")
def whole(study: StudyCase, brain: Any) -> Study:
    """The study at the 5 mm of the phantom."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastbts.study.grid.WORKING_MM", 5.0)
        return fastbts.read_study(study.folder, brain_engine=brain)


@pytest.fixture
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 mm a study takes five seconds."""
    monkeypatch.setattr("fastbts.study.grid.WORKING_MM", 5.0)


def write_stripped(folder: Path) -> list[Path]:
    """The phantom's brain as four NIfTI images on one grid."""
    data, geometry = stripped_case()
    paths = [folder / f"{modality}.nii.gz" for modality in TEXTS]
    for image, path in zip(data, paths, strict=True):
        nib.Nifti1Image(image, geometry.affine).to_filename(path)
    return paths


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two images where both have signal, 5 voxels from no edge."""
    inside = (a != 0) & (b != 0)
    return float(np.corrcoef(a[inside], b[inside])[0, 1])


def test_images_are_chosen_registered_and_stripped(whole: Study) -> None:
    truth, geometry = stripped_case()
    assert {m: s.name for m, s in whole.choice.series.items()} == TEXTS
    assert whole.volume.modalities == ("flair", "t1", "t1ce", "t2")
    assert geometry.difference(whole.volume.geometry) is None
    brain, true_brain = ((images != 0).any(axis=0) for images in (whole.volume.data, truth))
    assert (brain & true_brain).sum() > 0.95 * true_brain.sum()
    assert brain.sum() < 1.1 * true_brain.sum(), "with its holes"
    for image, true in zip(whole.volume.data, truth, strict=True):
        assert correlation(image, true) > 0.8
        shifted = np.roll(image, 2, axis=1)
        assert correlation(shifted, true) < correlation(image, true) - 0.15


def test_the_report_tells_every_step(whole: Study, segmenter: Segmenter) -> None:
    result = whole.segment(segmenter)
    assert list(result.timings_ms) == STEPS
    assert result.timings_ms["total"] == pytest.approx(
        sum(ms for step, ms in result.timings_ms.items() if step != "total"), rel=0.1
    )
    said = result.report["study"]
    assert {row["used_as"] for row in said["series"]} == {*TEXTS, None}
    assert all(row["why"] for row in said["series"])
    assert len(said["series"]) == len(SCANS)
    assert set(said["register"]["pairs"]) == {"flair", "t1", "t2"}
    for pair in said["register"]["pairs"].values():
        assert pair["quality"] > 0.2
        assert np.shape(pair["matrix"]) == (4, 4)
    assert said["strip"]["engine"]["name"] == "fake brain"
    assert 1000 < said["strip"]["brain_ml"] < 2000
    assert result.report["input"]["modalities"] == list(TEXTS)
    assert "Phantom^Fast" not in str(result.report)


def test_labels_are_on_the_reference(whole: Study, study: StudyCase, segmenter: Segmenter) -> None:
    result = whole.segment(segmenter)
    assert result.volume.geometry.difference(study.geometry) is None
    data, geometry = stripped_case()
    expected = segmenter.predict(data, affine=geometry.affine).labels
    found, wanted = result.labels == 4, expected == 4
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.6
    moved = np.roll(found, 3, axis=1)
    assert 2 * (moved & wanted).sum() / (moved.sum() + wanted.sum()) < 0.4
    assert result.probabilities.shape == (3, *study.geometry.shape)
    assert set(result.confidence) == {"WT", "TC", "ET"}
    voxels = {"WT": result.labels > 0, "ET": result.labels == 4}
    for region, mask in voxels.items():
        expected_ml = mask.sum() * study.geometry.voxel_ml
        assert result.volumes_ml[region] == pytest.approx(expected_ml)


@pytest.mark.slow
def test_coarse_voxels_are_segmented_at_1_mm(
    study: StudyCase, brain: Any, segmenter: Segmenter
) -> None:
    """The labels come back to the 5 mm of the reference, and their volumes are of these."""
    whole = fastbts.read_study(study.folder, brain_engine=brain)
    assert max(whole.volume.geometry.spacing_mm) < 1.1
    result = whole.segment(segmenter)
    assert result.labels.shape == study.geometry.shape
    assert result.volumes_ml["WT"] == pytest.approx(
        (result.labels > 0).sum() * study.geometry.voxel_ml
    )
    data, geometry = stripped_case()
    wanted = segmenter.predict(data, affine=geometry.affine).labels == 4
    found = result.labels == 4
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.6
    assert np.array_equal(result.probabilities.max(axis=0) >= 0.5, result.labels > 0)


@pytest.mark.usefixtures("_coarse")
def test_another_reference(study: StudyCase, segmenter: Segmenter) -> None:
    other = fastbts.read_study(study.folder, reference="t2", strip=False)
    result = other.segment(segmenter)
    (t2,) = (s for s in read_series(study.folder).series if s.name == T2.text)
    assert result.volume.geometry.difference(t2.geometry) is None
    assert result.dicom_files == t2.files
    with pytest.raises(CaseError, match="reference 'pet': expected one of flair, t1, t1ce, t2"):
        fastbts.read_study(study.folder, reference="pet")


@pytest.mark.usefixtures("_coarse")
def test_prepared_images_stay_as_they_are(tmp_path: Path, segmenter: Segmenter) -> None:
    """Stripped images on one grid give what `predict` gives, and no engine is asked for a brain."""
    paths = write_stripped(tmp_path)
    whole = fastbts.read_study(tmp_path)
    assert whole.report["register"]["skipped"] == "all images are stripped and on one grid"
    assert whole.report["strip"]["skipped"] == "all images are stripped"
    result = whole.segment(segmenter)
    expected = segmenter.predict(dict(zip(TEXTS, paths, strict=True)))
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.report["input"]["sha256"] == expected.report["input"]["sha256"]


@pytest.mark.usefixtures("_coarse")
def test_stripped_images_on_other_grids_are_registered(tmp_path: Path) -> None:
    """One brain for all: most of them decide."""
    write_stripped(tmp_path)
    image = nib.load(tmp_path / "t2.nii.gz")
    moved = image.affine.copy()
    moved[:3, 3] += 12, -7, 9
    nib.Nifti1Image(np.asarray(image.dataobj), moved).to_filename(tmp_path / "t2.nii.gz")
    whole = fastbts.read_study(tmp_path)
    pair = whole.report["register"]["pairs"]["t2"]
    assert pair["moved_mm"] == pytest.approx(np.sqrt(12**2 + 7**2 + 9**2), abs=1)
    assert whole.report["strip"]["skipped"] == "all images are stripped"
    assert set(np.unique(np.count_nonzero(whole.volume.data, axis=0))) <= {0, 2, 3, 4}


@pytest.mark.usefixtures("_coarse")
def test_steps_can_be_left_out(study: StudyCase) -> None:
    whole = fastbts.read_study(study.folder, register=False, strip=False)
    assert whole.report["register"] == {"skipped": "it was asked for", "pairs": {}}
    assert whole.report["strip"]["skipped"] == "it was asked for"
    assert whole.alignment.matrix("t2") == pytest.approx(np.eye(4))


def test_images_of_two_patient_spaces_need_registration(tmp_path: Path) -> None:
    other = {"FrameOfReferenceUID": "1.2.3"}
    scans = [replace(s, header=other) if s.text == T2.text else s for s in coarser(SCANS, 5)]
    write_study(head(), tmp_path, scans)
    with pytest.raises(GeometryError, match="2 frames of reference"):
        fastbts.read_study(tmp_path, register=False, strip=False)


@pytest.mark.usefixtures("_coarse")
def test_nifti_without_headers(
    study: StudyCase, tmp_path: Path, brain: Any, segmenter: Segmenter
) -> None:
    """Names are enough; results have the form of the T1ce's file."""
    paths = write_nifti(tmp_path, study.folder)
    whole = fastbts.read_study(paths, brain_engine=brain)
    result = whole.segment(segmenter)
    (saved, _) = result.save(tmp_path / "out" / "seg.nii.gz")
    assert np.allclose(nib.load(saved).affine, nib.load(paths[2]).affine)
    with pytest.raises(fastbts.OptionsError, match=r"seg.dcm: this result is not on a DICOM"):
        result.save(tmp_path / "out" / "seg.dcm")


@pytest.mark.usefixtures("_coarse")
def test_progress_and_cancel(study: StudyCase, brain: Any) -> None:
    class StopError(Exception):
        pass

    seen: list[tuple[str, float]] = []

    def stop(step: str, done: float) -> None:
        seen.append((step, done))
        if step == "register" and done > 0.4:
            raise StopError

    with pytest.raises(StopError):
        fastbts.read_study(study.folder, brain_engine=brain, progress=stop)
    assert [step for step, _ in seen][:3] == ["read", "choose", "read"]
    fractions = [done for _, done in seen]
    assert fractions == sorted(fractions)


def test_progress_of_both_parts_ends_at_1(whole: Study, segmenter: Segmenter) -> None:
    seen: list[tuple[str, float]] = []
    whole.segment(segmenter, lambda step, done: seen.append((step, done)))
    assert seen[-1] == ("done", 1.0)
    fractions = [done for _, done in seen]
    assert fractions == sorted(fractions)
    assert "infer" in [step for step, _ in seen]


@pytest.mark.usefixtures("_coarse")
def test_no_brain_is_an_error(study: StudyCase, tmp_path: Path) -> None:
    class Blind:
        """Finds no brain."""

        def __init__(self, like: Any) -> None:
            self.spec, self.text, self.description = like.spec, None, {}

        def infer(self, tensor: np.ndarray, text: Any = None, *, out: Any = None) -> np.ndarray:
            return np.full_like(tensor, -9)

        def close(self) -> None:
            pass

    like = load_engine(write_fake_brain_engine(tmp_path / "brain.fbts"))
    with pytest.raises(InputError, match="the brain found has 0 ml, expected at least 300"):
        fastbts.read_study(study.folder, brain_engine=Blind(like))


@pytest.mark.usefixtures("_coarse")
def test_a_missing_brain_engine_is_named(study: StudyCase, tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"none\.fbts"):
        fastbts.read_study(study.folder, brain_engine=tmp_path / "none.fbts")


@pytest.mark.usefixtures("_coarse")
def test_a_study_may_lack_what_is_optional(tmp_path: Path) -> None:
    """Without the T1ce the results are for the next series."""
    for path in write_stripped(tmp_path):
        if path.name == "t1ce.nii.gz":
            path.unlink()
    with pytest.raises(CaseError, match="study: no series for t1ce"):
        fastbts.read_study(tmp_path)
    whole = fastbts.read_study(tmp_path, optional=["t1ce"])
    assert whole.reference == "t1"
    assert list(whole.choice.series) == ["flair", "t1", "t2"]


@pytest.mark.usefixtures("_coarse")
def test_the_brain_engine_must_be_signed_too(study: StudyCase, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs fastbts[sign]")
    key = generate_keys(tmp_path / "key.pem")
    engine = write_fake_brain_engine(tmp_path / "brain.fbts")
    with pytest.raises(EngineFileError, match=r"brain\.fbts: no signature, expected one by"):
        fastbts.read_study(study.folder, register=False, brain_engine=engine, trusted_key=key)
