"""Odd DICOM files, each read right or refused with one sentence, never an image that is wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts.errors import CaseError, InputError
from fastbts.phantom.study import FLAIR, RAS_TO_LPS, T1, T2
from fastbts.study.choose import choose
from fastbts.study.read import read_series
from fastbts.study.read_dicom import read_dicom
from tests.study.enhanced import write_enhanced
from tests.study.made import AFFINE, FOUR, write_four, write_series
from tests.study.results import edit, only, refusal

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
PLAIN = AFFINE * [8, 8, 6, 1]


def turned(sine: float) -> list[float]:
    """Directions of rows and columns in a slice that is turned about its normal."""
    cosine = float(np.sqrt(1 - sine**2))
    return [float(f"{v:.8g}") for v in (cosine, sine, 0, -sine, cosine, 0)]


@pytest.mark.parametrize(
    "change",
    [
        lambda k: {"ImageOrientationPatient": turned(0.125 + 1e-6 * (-1) ** k)},
        lambda k: {"PixelSpacing": [8.0005 + 1e-6 * (-1) ** k] * 2},
        lambda k: {"EchoTime": 9.05 + 1e-6 * (-1) ** k},
    ],
    ids=["direction", "spacing", "echo"],
)
def test_rounding_splits_no_series(tmp_path: Path, change: Callable[[int], Any]) -> None:
    """Every second slice alone would be a whole image with gaps."""
    write_series(tmp_path, T1, change=change)
    series = only(read_dicom(tmp_path))
    assert series.n_slices == 20
    assert series.slice_mm == pytest.approx(6)


@pytest.mark.parametrize("spacing", [[-8, 8], [8, -8], [0, 8]])
def test_spacing_that_is_not_positive(tmp_path: Path, spacing: list[float]) -> None:
    """The image would be mirrored."""
    write_series(tmp_path, T1, header={"PixelSpacing": spacing})
    assert "expected numbers above 0" in refusal(tmp_path)


def test_a_negative_step_between_slices_is_not_used(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"SpacingBetweenSlices": -6.0, "SliceThickness": 0.0})
    np.testing.assert_allclose(only(read_dicom(tmp_path)).geometry.affine, PLAIN)


def test_directions_that_are_no_unit_vectors(tmp_path: Path) -> None:
    header = {"ImageOrientationPatient": [1.0004, 0, 0, 0, 0.9996, 0]}
    write_series(tmp_path / "a", T1, header=header)
    np.testing.assert_allclose(only(read_dicom(tmp_path / "a")).geometry.affine, PLAIN)
    write_series(tmp_path / "b", T1, header={"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]})
    assert "expected directions of unit length" in refusal(tmp_path / "b")


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"PixelSpacing": [4, 8]})  # rows are 4 mm apart
    series = only(read_dicom(tmp_path))
    assert series.geometry.spacing_mm == pytest.approx((8, 4, 6))
    assert series.voxels[3, 2, 5] == 5203


def test_an_oblique_acquisition(tmp_path: Path) -> None:
    """Slices turned about two axes: the position of a voxel is that of its header."""
    x, y, z = np.radians([20, -15, 10])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    axes = rz @ ry @ rx

    def place(k: int) -> dict[str, list[float]]:
        position = axes @ [10, -20, 6 * k]
        return {
            "ImageOrientationPatient": [*axes[:, 0].round(7), *axes[:, 1].round(7)],
            "ImagePositionPatient": position.round(5).tolist(),
        }

    write_series(tmp_path, T1, change=place)
    series = only(read_dicom(tmp_path))
    expected = RAS_TO_LPS[:3, :3] @ axes @ [10 + 3 * 8, -20 + 2 * 8, 5 * 6]
    np.testing.assert_allclose((series.geometry.affine @ [3, 2, 5, 1])[:3], expected, atol=1e-4)
    assert series.voxels[3, 2, 5] == 5203
    assert series.orientation == "tra"


def test_all_slices_with_one_uid(tmp_path: Path) -> None:
    """As careless anonymisation leaves them."""
    for path in write_series(tmp_path, T1):
        edit(path, SOPInstanceUID="1.2.3")
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 5203


def test_slices_that_were_sent_twice_with_new_uids(tmp_path: Path) -> None:
    write_series(tmp_path / "a", T1)
    for path in write_series(tmp_path / "b", T1):
        edit(path, SOPInstanceUID=pydicom.uid.generate_uid())
    series = only(read_dicom(tmp_path))
    assert series.n_slices == 20
    assert series.voxels[3, 2, 5] == 5203


def test_one_damaged_file_of_many(tmp_path: Path) -> None:
    """A cut header: the slice is missing, and why is said."""
    paths = write_four(tmp_path)
    paths["t2"][7].write_bytes(paths["t2"][7].read_bytes()[:300] + b"\xff" * 40)
    found = read_series(tmp_path)
    assert (len(found.series), found.n_damaged) == (3, 1)
    with pytest.raises(CaseError) as raised:
        choose(found)
    assert "steps between its 19 slices" in str(raised.value)
    assert "DICOM files that are damaged: 1; send the study again" in str(raised.value)
    (tmp_path / "more").write_bytes(paths["t2"][7].read_bytes())
    write_series(tmp_path, T2, 4)
    assert choose(read_series(tmp_path)).warnings[-1].startswith("DICOM files that are damaged: 1")


def test_images_without_pixels(tmp_path: Path) -> None:
    for path in write_series(tmp_path, T1):
        dataset = pydicom.dcmread(path)
        del dataset.PixelData
        dataset.save_as(path)
    with pytest.raises(
        InputError, match="slice 1 cannot be decoded: The dataset has no 'Pixel Dat"
    ):
        _ = only(read_dicom(tmp_path)).voxels


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "T1 nach KM für Kopf"),
        ("GB18030", "T1 增强"),
        (["", "ISO 2022 IR 87"], "T1 造影"),
        ("ISO_IR 144", "Т1 с контрастом"),
        ("ISO_IR 192", "T1 après injection, contraste"),
    ],
    ids=["latin", "chinese", "japanese", "cyrillic", "utf8"],
)
def test_descriptions_in_other_letters(tmp_path: Path, charset: Any, text: str) -> None:
    header = {"SpecificCharacterSet": charset, "SeriesDescription": text, "EchoTime": None}
    write_series(tmp_path, T1, header=header)
    series = only(read_dicom(tmp_path))
    assert series.name == text
    others = (FOUR["flair"], FOUR["t1"], FOUR["t2"])
    choice = choose(type(read_dicom(tmp_path))((series, *others)))
    assert choice.series["t1ce"] is series


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_description_that_is_a_book(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"SeriesDescription": "t1 \x1b[31m\x07" + "x" * 60_000})
    series = only(read_dicom(tmp_path))
    assert series.name == "t1 [31m " + "x" * 56
    assert all(len(text) <= 64 for text in series.facts.texts)


def test_bits_of_an_overlay(tmp_path: Path) -> None:
    """12 bits are stored; those above are of an overlay."""
    for path in write_series(tmp_path, T1):
        values = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint16) % 4096 | 0x8000
        edit(path, PixelData=values.tobytes(), BitsStored=12, HighBit=11)
    assert only(read_dicom(tmp_path)).voxels[3, 2, 5] == 5203 % 4096


def test_an_enhanced_file_with_fewer_positions_than_frames(tmp_path: Path) -> None:
    slices = [pydicom.dcmread(path) for path in write_series(tmp_path / "a", FLAIR)]
    write_enhanced(tmp_path / "b" / "file", slices)
    edit(tmp_path / "b" / "file", NumberOfFrames=2_000_000_000)
    assert "2000000000 frames, but not as many positions" in refusal(tmp_path / "b")


def test_pixels_too_many_for_memory(tmp_path: Path) -> None:
    write_series(tmp_path, T1, header={"Rows": 65535, "Columns": 65535})
    assert "65535 x 65535 x 20 voxels, at most" in refusal(tmp_path)


def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    """Workflow engines give folders of links; some end nowhere, or where they began."""
    write_series(tmp_path / "data" / "series", T1)
    study = tmp_path / "study"
    study.mkdir()
    (study / "linked").symlink_to(tmp_path / "data" / "series")
    (study / "again").symlink_to(study)
    (study / "broken").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(study / "pipe")
    assert only(read_dicom(study)).n_slices == 20


def test_annexed_files_that_were_not_fetched(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.dcm").symlink_to(tmp_path / "annex" / str(n))
    with pytest.raises(CaseError, match=r"3 are links to files that are not there: get these firs"):
        read_series(tmp_path)


def test_an_archive(tmp_path: Path) -> None:
    write_series(tmp_path / "data", T1, n_slices=3)
    (tmp_path / "study").mkdir()
    shutil.make_archive(str(tmp_path / "study" / "export"), "zip", tmp_path / "data")
    with pytest.raises(
        CaseError, match="none of 1 files is a DICOM or NIfTI image; unpack the arch"
    ):
        read_series(tmp_path / "study")


@pytest.mark.parametrize(
    ("where", "what"),
    [("pathlib.Path.open", "file cannot be opened"), ("os.scandir", "folder cannot be listed")],
)
def test_what_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, what: str
) -> None:
    """Simulated, as root may read everything."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    write_series(tmp_path, T1, n_slices=2)
    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        with pytest.raises(InputError, match=f"a {what}: Permission denied; check "):
            read_dicom(tmp_path)


def test_perfusion_beside_a_good_study(tmp_path: Path) -> None:
    """Many images over time, all with one number: neither read nor in the way."""
    write_four(tmp_path)
    for n in range(6):
        scan = write_series(tmp_path / str(n), T2, 9, n_slices=4)
        for path in scan:
            dataset = pydicom.dcmread(path)
            values = np.frombuffer(dataset.PixelData, np.uint16) + np.uint16(n)
            edit(path, SOPInstanceUID=pydicom.uid.generate_uid(), PixelData=values.tobytes())
    found = read_series(tmp_path)
    assert len(choose(found).series) == 4
    assert "several images at the same positions" in found.refused[0].why


def test_a_fat_image_is_no_candidate(tmp_path: Path) -> None:
    write_four(tmp_path)
    header = {"ImageType": ["ORIGINAL", "PRIMARY", "DIXON", "FAT"], "ContrastBolusAgent": "Gd"}
    write_series(tmp_path, T1, 9, n_slices=24, header=header)
    choice = choose(read_series(tmp_path))
    assert [row["why"] for row in choice.report() if not row["used_as"]] == ["an image of fat"]
