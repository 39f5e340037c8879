"""Messes of DICOM files: read by position, or refused with one sentence."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastbts.errors import CaseError, DeviceError, InputError
from fastbts.phantom.study import FLAIR, T1, T1CE, T2, Scan, StudyCase
from fastbts.read.regrid import resample_to_grid
from fastbts.study import dcm2niix
from fastbts.study.choose import choose
from fastbts.study.read_dicom import read_dicom
from fastbts.volume import MODALITIES, Geometry
from tests.study.enhanced import write_enhanced
from tests.study.made import AFFINE, head, write_four, write_series
from tests.study.results import edit, only, refusal

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def test_the_study_maker_and_the_reader_agree(study: StudyCase) -> None:
    found = read_dicom(study.folder)
    assert [(r.name, r.why) for r in found.refused] == [("localizer", "a localizer")]
    names = [series.name for series in found.series]
    assert names == [text for text in study.files if text != "localizer"]
    t1ce = found.series[-1]
    assert t1ce.geometry.difference(study.geometry) is None
    assert t1ce.files == study.files[t1ce.name]
    case = head().volume.data[2]
    assert np.corrcoef(t1ce.voxels.ravel(), case.ravel())[0, 1] > 0.99
    assert [series.orientation for series in found.series] == ["sag", "tra", "tra", "tra", "tra"]
    choice = choose(found)
    assert {m: s.name for m, s in choice.series.items()} == {
        "flair": FLAIR.text, "t1": T1.text, "t1ce": T1CE.text, "t2": T2.text,
    }  # fmt: skip


@pytest.mark.parametrize("scan", [FLAIR, T1, T2], ids=lambda scan: scan.modality)
def test_the_truth_of_the_study_maker(study: StudyCase, scan: Scan) -> None:
    """Placed by the truth, a moved image is the image of the case; by its header it is not."""
    series = next(s for s in read_dicom(study.folder).series if s.name == scan.text)
    case = head().volume
    image = case.data[MODALITIES.index(scan.modality)]
    placed, as_is = (
        resample_to_grid(
            series.voxels,
            Geometry(series.geometry.shape, matrix @ series.geometry.affine),
            case.geometry,
        )
        for matrix in (study.truth[scan.text], np.eye(4))
    )
    inside = placed > 0
    right, wrong = (np.corrcoef(image[inside], a[inside])[0, 1] for a in (placed, as_is))
    assert right > 0.9
    assert wrong < right - 0.2


def test_slices_are_sorted_by_position(tmp_path: Path) -> None:
    paths = write_series(tmp_path, T1)
    series = only(read_dicom(sorted(paths)))
    assert series.geometry.shape == (24, 20, 20)
    np.testing.assert_allclose(series.geometry.affine, AFFINE * [8, 8, 6, 1])
    assert series.voxels.dtype == np.uint16
    assert series.voxels[3, 2, 5] == 5203
    assert series.voxels.flags.f_contiguous
    assert series.files == tuple(paths)
    assert (series.facts.te_ms, series.facts.tr_ms, series.facts.ti_ms) == (9, 600, None)
    assert series.facts.sequence == ("SE",)
    assert series.facts.contrast_agent == ""


def test_voxels_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    series = only(read_dicom(write_series(tmp_path / "a", T1)))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(InputError, match=r"series t1_se_tra \(\w{4}\): slice 1 cannot be decoded"):
        _ = series.voxels


def test_other_files_are_counted_and_ignored(tmp_path: Path) -> None:
    write_series(tmp_path / "deep" / "er", T1)
    (tmp_path / "readme.txt").write_text("\x08\x00 a text that begins like DICOM" * 10)
    (tmp_path / "noise").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 500)
    (tmp_path / "empty").touch()
    directory = pydicom.Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.FileSetID = "DISK"
    pydicom.dcmwrite(tmp_path / "DICOMDIR", directory, enforce_file_format=True)
    found = read_dicom(tmp_path)
    assert only(found).n_slices == 20
    assert (found.n_others, found.n_damaged) == (3, 1)


def test_files_without_preamble(tmp_path: Path) -> None:
    paths = write_series(tmp_path, T1)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.preamble, dataset.file_meta = None, pydicom.dataset.FileMetaDataset()
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 5203


def test_no_dicom_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CaseError, match="none of 1 files is a DICOM image; check the folder"):
        read_dicom(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: does not exist; expected a folder or a file"):
        read_dicom(tmp_path / "nowhere")


def test_copies_of_files_are_left_out(tmp_path: Path) -> None:
    for path in write_series(tmp_path, T1):
        shutil.copy(path, tmp_path / f"{path.name}.copy")
    assert only(read_dicom(tmp_path)).n_slices == 20


def test_a_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path, T1, leave_out=(7,))
    assert refusal(tmp_path) == (
        "steps between its 19 slices of 6.00 to 12.00 mm, expected equal ones: slices are missing; "
        "send the series again"
    )


def test_two_acquisitions_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", T1, header={"AcquisitionNumber": 1})
    again = write_series(tmp_path / "b", T1, header={"AcquisitionNumber": 2})
    for path in again:
        edit(path, SOPInstanceUID=pydicom.uid.generate_uid())
    first, second = read_dicom(tmp_path).series
    assert (first.n_slices, second.n_slices) == (20, 20)
    assert second.uid == f"{first.uid}/2"
    for path in again:
        pixels = bytes(reversed(pydicom.dcmread(path).PixelData))
        edit(path, AcquisitionNumber=1, PixelData=pixels)
    assert "several images at the same positions, which nothing tells apart" in refusal(tmp_path)


def test_many_images_over_time(tmp_path: Path) -> None:
    for n in range(5):
        header = {"AcquisitionNumber": n + 1}
        for path in write_series(tmp_path / str(n), T1, n_slices=3, header=header):
            edit(path, SOPInstanceUID=pydicom.uid.generate_uid())
    assert refusal(tmp_path) == "5 images one after the other: perfusion or function"


def test_two_echoes_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", T2, header={"EchoTime": 15})
    for path in write_series(tmp_path / "b", T2):
        edit(path, SOPInstanceUID=pydicom.uid.generate_uid())
    assert sorted(s.facts.te_ms or 0 for s in read_dicom(tmp_path).series) == [15, 99]


def test_frames_of_reference_that_are_mixed(tmp_path: Path) -> None:
    write_series(tmp_path, T1, change=lambda k: {"FrameOfReferenceUID": f"1.2.{k // 10 + 1}"})
    assert "slices in 2 frames of reference, whose positions cannot be compared" in refusal(
        tmp_path
    )


def test_two_patients(tmp_path: Path) -> None:
    write_series(tmp_path, T1)
    write_series(tmp_path, T2, 2, header={"PatientID": "SECRET"})
    with pytest.raises(CaseError, match="images of 2 patients; expected one") as raised:
        read_dicom(tmp_path)
    assert "SECRET" not in str(raised.value)


def test_two_studies(tmp_path: Path) -> None:
    write_series(tmp_path, T1)
    write_series(tmp_path, T2, 2, header={"StudyInstanceUID": "1.2.3.4"})
    with pytest.raises(CaseError, match=r"2 studies of the patient, the oldest f") as e:
        read_dicom(tmp_path)
    first = str(e.value).split("first: ")[1][:4]
    assert only(read_dicom(tmp_path, study=first)).name == T1.text
    assert only(read_dicom(tmp_path, study="1.2.3.4")).name == T2.text
    with pytest.raises(CaseError, match=r"no study 9; .* with 1 series; choose one of them"):
        read_dicom(tmp_path, study="9")


def test_a_ct(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"Modality": "CT"})
    assert refusal(tmp_path) == "CT, not a magnetic resonance image"
    with pytest.raises(CaseError, match=r"no series for flair, .*CT, not a magnetic"):
        choose(read_dicom(tmp_path))


def test_five_slices(tmp_path: Path) -> None:
    write_series(tmp_path, T1, n_slices=5)
    with pytest.raises(CaseError, match=r"t1_se_tra \(\w+\): 5 slices, at least 12 are needed"):
        choose(read_dicom(tmp_path))


def test_a_single_slice(tmp_path: Path) -> None:
    write_series(tmp_path, T1, n_slices=2, leave_out=(1,))
    assert refusal(tmp_path) == "1 slice: a localizer or a single picture"


def test_a_header_without_a_position(tmp_path: Path) -> None:
    write_series(tmp_path, T1, change=lambda k: {"PixelSpacing": [0, 0]} if k else {})
    write_series(tmp_path, T1, change=lambda k: {"ImageOrientationPatient": [1, 0, 0]})
    assert refusal(tmp_path).startswith("a header has no usable position, spacing or size (expecte")


def test_a_colour_picture(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"PhotometricInterpretation": "RGB"})
    assert "pixels are RGB, expected MONOCHROME2" in refusal(tmp_path)


def test_a_tilted_gantry(tmp_path: Path) -> None:
    tilt = [1, 0, 0, 0, np.cos(0.2), np.sin(0.2)]
    write_series(tmp_path, T1, header={"ImageOrientationPatient": tilt})
    assert "voxel axes are not perpendicular" in refusal(tmp_path)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLSLossless", "DeflatedExplicitVRLittleEndian"]
)
def test_compressed_pixels(tmp_path: Path, syntax: str) -> None:
    for path in write_series(tmp_path, T1):
        dataset = pydicom.dcmread(path)
        uid = getattr(pydicom.uid, syntax)
        if uid.is_deflated:
            dataset.file_meta.TransferSyntaxUID = uid
        else:
            dataset.compress(uid, generate_instance_uid=False)
        dataset.save_as(path)
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 5203


def test_jpeg_2000(tmp_path: Path) -> None:
    """Pillow, which fastbts needs anyway, decodes it."""
    for path in write_series(tmp_path, T1):
        dataset, stream = pydicom.dcmread(path), io.BytesIO()
        Image.fromarray(dataset.pixel_array).save(stream, "JPEG2000", no_jp2=True)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        dataset.save_as(path)
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 5203


def test_compressed_pixels_that_cannot_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the packages that decode JPEG Lossless were not installed."""
    for path in write_series(tmp_path, T1):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset.save_as(path)
    decoder = type(pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1))
    monkeypatch.setattr(decoder, "is_available", False)
    monkeypatch.setattr(dcm2niix, "program", lambda: None)
    why = refusal(tmp_path)
    assert why.startswith("compressed as JPEG Lossless, Non-Hierarchical, First-Order Prediction")
    assert why.endswith("install dcm2niix, or decompress the files (dcmdjpeg of DCMTK)")


def test_truncated_pixels(tmp_path: Path) -> None:
    path = write_series(tmp_path, T1)[4]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"slice 5 cannot be decoded: .*; send the series again"):
        _ = only(read_dicom(tmp_path)).voxels


@pytest.mark.parametrize("scale", [(2, 0), (2, 10), (0.5, -3)])
def test_rescaled_values(tmp_path: Path, scale: tuple[float, float]) -> None:
    """A positive factor alone changes nothing: the integers stay."""
    slope, intercept = scale
    write_series(tmp_path, T1, header={"RescaleSlope": slope, "RescaleIntercept": intercept})
    voxels = only(read_dicom(tmp_path)).voxels
    if intercept == 0:
        assert (voxels.dtype, voxels[3, 2, 5]) == (np.uint16, 5203)
    else:
        assert (voxels.dtype, voxels[3, 2, 5]) == (np.float32, slope * 5203 + intercept)


def test_slopes_that_differ_between_slices(tmp_path: Path) -> None:
    write_series(tmp_path, T1, change=lambda k: {"RescaleSlope": k + 1, "RescaleIntercept": 0})
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 6 * 5203


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    """The same series as one enhanced file."""
    classic = only(read_dicom(write_series(tmp_path / "classic", FLAIR)))
    write_enhanced(tmp_path / "enhanced", [pydicom.dcmread(path) for path in classic.files])
    series = only(read_dicom(tmp_path / "enhanced"))
    assert series.geometry.difference(classic.geometry) is None
    assert np.array_equal(series.voxels, classic.voxels)
    facts = series.facts
    assert (facts.te_ms, facts.tr_ms, facts.ti_ms) == (93, 9000, 2500)
    assert facts.sequence == ("SE", "IR")
    assert facts.contrast_agent == "Gadobutrol"
    assert len(series.files) == 1


def test_several_frames_without_positions(tmp_path: Path) -> None:
    write_series(tmp_path, T1, n_slices=2, header={"NumberOfFrames": 2})
    assert "several frames without positions" in refusal(tmp_path)


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, T1, n_slices=2)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DeviceError, match=r"pydicom is not .* pip install 'fastbts\[dicom\]'"):
        read_dicom(tmp_path)


def test_messages_do_not_name_the_patient(tmp_path: Path) -> None:
    private = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientBirthDate": "19501231"}
    write_four(tmp_path, private)
    found = read_dicom(tmp_path)
    choice = choose(found)
    said = f"{found} {choice.report()} {choice.warnings} {[s.facts for s in found.series]}"
    assert not any(word in said for word in ("Doe", "Jane", "4711", "1950"))
