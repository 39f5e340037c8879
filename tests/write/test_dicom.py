"""Segmentations and reports for the PACS: on the right place and by the standard."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts.about import DISCLAIMER
from fastbts.errors import DeviceError, InputError, OptionsError, OutputError
from fastbts.files import write_set
from fastbts.labels import ED, ET, NCR
from fastbts.phantom.study import FLAIR, T1, T1CE
from fastbts.study.read_dicom import read_dicom
from fastbts.study.series import Series
from fastbts.write.dicom_seg import write_dicom_seg
from fastbts.write.dicom_sr import write_dicom_sr
from fastbts.write.ours import is_ours
from tests.study.enhanced import write_enhanced
from tests.study.made import write_series

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
hd = pytest.importorskip("highdicom", reason="needs fastbts[dicom]")

ENGINE = {"name": "tiny", "sha256": "0123456789abcdef" * 4}
VOLUMES = {"WT": 9.2, "TC": 4.6, "ET": 2.3}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """24 x 20 x 20 voxels of 8 x 8 x 6 mm."""
    return read_dicom(write_series(tmp_path_factory.mktemp("t1ce"), T1CE)).series[0]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Unlike its mirror images and permutations."""
    made = np.zeros((24, 20, 20), np.uint8)
    made[3:9, 4:8, 5:12] = ED
    made[4:7, 5:7, 6:9] = ET
    made[5, 5, 7] = NCR
    return made


def check_standard(path: Path) -> None:
    """By dciodvfy of Debian's dicom3tools: no error, no warning."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt install dicom3tools")
    said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if ":" in line or "rror" in line] == []
    assert said.returncode == 0


def voxels_of(path: Path, series: Series) -> np.ndarray:
    """Numbers of the segments on the grid of a series, (i, j, k), read by highdicom."""
    source = hd.get_volume_from_series([pydicom.dcmread(file) for file in series.files])
    volume = hd.seg.segread(path).get_volume(combine_segments=True).match_geometry(source)
    lps = np.diag([-1.0, -1, 1, 1]) @ series.geometry.affine
    grid = hd.VolumeGeometry(
        lps[:, [2, 1, 0, 3]], series.geometry.shape[::-1], "PATIENT",
        frame_of_reference_uid=volume.frame_of_reference_uid,
    )  # fmt: skip
    return volume.match_geometry(grid).array.T


def test_labels_come_back_on_the_right_place(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, series.files, engine=ENGINE)
    numbers = voxels_of(tmp_path / "a.dcm", series)
    assert np.array_equal(np.array([0, NCR, ED, ET])[numbers], labels)


def test_what_the_segmentation_says(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, series.files, engine=ENGINE)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    segments = [
        (s.SegmentNumber, s.SegmentLabel, s.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        for s in dataset.SegmentSequence
    ]
    assert segments == [
        (1, "Necrotic core", "6574001"),
        (2, "Peritumoral oedema", "79654002"),
        (3, "Enhancing tumour", "C113842"),
    ]
    first = dataset.SegmentSequence[0]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert first.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert dataset.ContentDescription == DISCLAIMER
    assert DISCLAIMER in dataset.SeriesDescription
    assert dataset.DeviceSerialNumber == ENGINE["sha256"][:16]
    source = pydicom.dcmread(series.files[0])
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "AccessionNumber"):
        assert dataset[keyword].value == source[keyword].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def test_binary_segmentation_keeps_the_standard(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, series.files)
    check_standard(tmp_path / "a.dcm")


def probabilities(labels: np.ndarray) -> np.ndarray:
    whole, core, enhancing = labels > 0, np.isin(labels, [NCR, ET]), labels == ET
    return np.stack([0.9 * whole, 0.6 * core, 0.3 * enhancing]).astype(np.float32)


def test_fractional_segmentation(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    path = tmp_path / "a.dcm"
    write_dicom_seg(
        path, labels, series.geometry, series.files, probabilities=probabilities(labels)
    )
    dataset = hd.seg.segread(path)
    assert dataset.SegmentationType == "FRACTIONAL"
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == [
        *("Whole tumour", "Tumour core", "Enhancing tumour")
    ]
    values = dataset.get_volume().array.max(axis=(0, 1, 2))
    np.testing.assert_allclose(values, [0.9, 0.6, 0.3], atol=1 / 255)
    check_standard(path)


def test_report(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    args = labels, series.geometry, series.files
    seg = write_dicom_seg(tmp_path / "seg.dcm", *args, engine=ENGINE)
    write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, *args, seg, engine=ENGINE)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert measured(report) == {
        "WT: Whole tumour": 9.2,
        "TC: Tumour core": 4.6,
        "ET: Enhancing tumour": 2.3,
        "Necrotic core": 0.384,  # 1 voxel of 8 x 8 x 6 mm
        "Peritumoral oedema": 57.6,
        "Enhancing tumour": 6.528,
    }
    assert values_of(report, "ReferencedSegmentNumber") == [1, 2, 3]
    tracked = [str(segment.TrackingUID) for segment in seg.SegmentSequence]
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_uid for group in groups] == tracked
    assert seg.SOPInstanceUID in values_of(report, "ReferencedSOPInstanceUID")
    assert DISCLAIMER in report.SeriesDescription
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.CompletionFlag == "COMPLETE"
    check_standard(tmp_path / "sr.dcm")


def values_of(dataset: Any, keyword: str) -> list[Any]:
    return [element.value for element in dataset.iterall() if element.keyword == keyword]


def measured(report: Any) -> dict[str, float]:
    """Tracking identifier -> volume in ml."""
    content = report.content
    groups = (
        *content.get_image_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
    )
    pairs = {}
    for group in groups:
        (volume,) = group.get_measurements()
        assert volume.unit.value == "ml"
        pairs[group.tracking_identifier] = volume.value
    return pairs


def test_a_segment_without_voxels_is_not_reported(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    args = np.where(labels == NCR, ET, labels), series.geometry, series.files
    seg = write_dicom_seg(tmp_path / "seg.dcm", *args)
    write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, *args, seg)
    assert "Necrotic core" not in measured(hd.sr.srread(tmp_path / "sr.dcm"))
    check_standard(tmp_path / "seg.dcm")
    check_standard(tmp_path / "sr.dcm")


def test_report_on_a_fractional_segmentation(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    args = labels, series.geometry, series.files
    seg = write_dicom_seg(tmp_path / "seg.dcm", *args, probabilities=probabilities(labels))
    write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, *args, seg)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert list(measured(report).values()) == [9.2, 4.6, 2.3]
    assert values_of(report, "ReferencedSegmentNumber") == [1, 2, 3]
    check_standard(tmp_path / "sr.dcm")


def test_report_without_a_tumour(tmp_path: Path, series: Series) -> None:
    nothing = np.zeros(series.geometry.shape, np.uint8)
    none = dict.fromkeys(VOLUMES, 0.0)
    write_dicom_sr(tmp_path / "sr.dcm", none, nothing, series.geometry, series.files, None)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert measured(report) == {
        "WT: Whole tumour": 0, "TC: Tumour core": 0, "ET: Enhancing tumour": 0,
    }  # fmt: skip
    check_standard(tmp_path / "sr.dcm")


def test_equal_arguments_give_equal_uids(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    """So that a PACS that receives a result twice keeps it once."""
    args = labels, series.geometry, series.files
    one, two = (write_dicom_seg(tmp_path / f"{n}.dcm", *args) for n in "ab")
    assert (one.SOPInstanceUID, one.SeriesInstanceUID) == (
        two.SOPInstanceUID,
        two.SeriesInstanceUID,
    )
    other = write_dicom_seg(tmp_path / "c.dcm", np.flip(labels, 0).copy(), *args[1:])
    assert other.SOPInstanceUID != one.SOPInstanceUID


def test_reports_of_two_results_are_two_objects(
    tmp_path: Path, series: Series, labels: np.ndarray
) -> None:
    """Also without a segmentation to refer to; else a PACS drops the second."""
    place = series.geometry, series.files
    flipped = np.flip(labels, 0).copy()
    reports = [
        write_dicom_sr(tmp_path / "sr.dcm", volumes, voxels, *place, None)
        for volumes, voxels in (
            (VOLUMES, labels),
            (VOLUMES, labels),
            ({**VOLUMES, "ET": 2.4}, labels),
            (VOLUMES, flipped),
        )
    ]
    first, again, *others = (report.SOPInstanceUID for report in reports)
    assert first == again
    assert len({first, *others}) == 3


@pytest.mark.parametrize("scan", [FLAIR, T1])
def test_on_an_enhanced_file(tmp_path: Path, labels: np.ndarray, scan: Any) -> None:
    slices = [pydicom.dcmread(p) for p in write_series(tmp_path / "classic", scan)]
    write_enhanced(tmp_path / "enhanced", slices)
    (series,) = read_dicom(tmp_path / "enhanced").series
    (classic,) = read_dicom(tmp_path / "classic").series
    write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, series.files)
    numbers = voxels_of(tmp_path / "a.dcm", classic)
    assert np.array_equal(np.array([0, NCR, ED, ET])[numbers], labels)


def test_files_of_another_series(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    wrong = write_series(tmp_path / "b", T1, n_slices=19)
    with pytest.raises(InputError, match=r"a slice of the grid is 6 mm away from those of the"):
        write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, wrong)
    cut = labels[:12]
    geometry = type(series.geometry)(cut.shape, series.geometry.affine)
    with pytest.raises(InputError, match=r"have \(24, 20\) pixels, those of the grid \(12, 20\)"):
        write_dicom_seg(tmp_path / "a.dcm", cut.copy(), geometry, series.files)
    with pytest.raises(InputError, match=r"file 1 of 1 of the segmented .*: No such file"):
        write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, [tmp_path / "gone"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a[:5], InputError, "expected uint8 labels of shape"),
        (lambda a: a.astype(np.int16), InputError, "got int16"),
        (lambda a: a + np.uint8(2), InputError, r"labels \[3, 6\]: expected 0, 1, 2 and 4"),
        (np.zeros_like, OptionsError, "no voxel is tumour"),
    ],
)
def test_wrong_labels(
    tmp_path: Path,
    series: Series,
    labels: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        write_dicom_seg(tmp_path / "a.dcm", change(labels), series.geometry, series.files)
    assert list(tmp_path.iterdir()) == []


def test_wrong_probabilities(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    wrong = probabilities(labels)[:2]
    with pytest.raises(InputError, match=r"expected probabilities of shape \(3, 24, 20, 20\)"):
        write_dicom_seg(
            tmp_path / "a.dcm", labels, series.geometry, series.files, probabilities=wrong
        )


def test_probabilities_of_no_tumour(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    nothing = np.zeros_like(probabilities(labels))
    with pytest.raises(OptionsError, match="no voxel is tumour"):
        write_dicom_seg(
            tmp_path / "a.dcm", labels, series.geometry, series.files, probabilities=nothing
        )


def test_inputs_are_not_overwritten(series: Series, labels: np.ndarray) -> None:
    before = series.files[0].read_bytes()
    with pytest.raises(OutputError, match="is an input of this case"):
        write_dicom_seg(series.files[0], labels, series.geometry, series.files)
    assert series.files[0].read_bytes() == before


def test_our_objects_are_known(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    args = labels, series.geometry, series.files
    fraction = {"probabilities": probabilities(labels)}
    seg = write_dicom_seg(tmp_path / "seg.dcm", *args)
    write_dicom_seg(tmp_path / "fraction.dcm", *args, **fraction)
    write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, *args, seg)
    assert all(is_ours(path) for path in tmp_path.iterdir())
    dataset = pydicom.dcmread(series.files[0])
    dataset.Manufacturer = "ACME"
    dataset.save_as(tmp_path / "other.dcm")
    assert not is_ours(tmp_path / "other.dcm")


def test_as_files_of_a_set(tmp_path: Path, series: Series, labels: np.ndarray) -> None:
    """Both appear, or none."""
    args = labels, series.geometry, series.files
    with write_set() as new_file:
        seg = write_dicom_seg(tmp_path / "seg.dcm", *args, open_file=new_file)
        write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, *args, seg, open_file=new_file)
        assert list(tmp_path.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seg.dcm", "sr.dcm"]


def test_warnings_do_not_name_the_patient(
    tmp_path: Path,
    labels: np.ndarray,
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """pydicom quotes values that break the standard."""
    name = "Doe^" + "Jane" * 40
    (series,) = read_dicom(write_series(tmp_path / "a", T1, header={"PatientName": name})).series
    recwarn.clear()
    caplog.clear()
    (series,) = read_dicom(series.files).series
    _ = series.voxels
    seg = write_dicom_seg(tmp_path / "seg.dcm", labels, series.geometry, series.files)
    write_dicom_sr(tmp_path / "sr.dcm", VOLUMES, labels, series.geometry, series.files, seg)
    assert recwarn.list == []
    assert caplog.text == ""


def test_without_highdicom(
    tmp_path: Path, series: Series, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(DeviceError, match=r"highdicom is not .* pip install 'fastbts\[dicom\]'"):
        write_dicom_seg(tmp_path / "a.dcm", labels, series.geometry, series.files)
