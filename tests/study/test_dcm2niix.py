"""dcm2niix as a second reader, and as the source of NIfTI studies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts.errors import InputError
from fastbts.phantom.study import FLAIR, T1, T1CE, T2, Scan, StudyCase
from fastbts.study import dcm2niix
from fastbts.study.choose import choose
from fastbts.study.read import read_series
from fastbts.study.read_dicom import read_dicom
from fastbts.study.series import Series
from tests.study.made import write_four, write_series
from tests.study.results import only

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
REASON = "dcm2niix is not installed: apt-get install dcm2niix, or pip install dcm2niix"
needs_dcm2niix = pytest.mark.skipif(dcm2niix.program() is None, reason=REASON)


def pack(paths: list[Path]) -> None:
    """Compresses the files by run lengths, which pydicom can do by itself."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no package decoded run lengths."""
    decoder = type(pydicom.pixels.get_decoder(pydicom.uid.RLELossless))
    monkeypatch.setattr(decoder, "is_available", False)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@needs_dcm2niix
@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("axes", [None, "PIR", "RIA", "RAS"])
def test_voxels_on_the_grid_of_our_reader(
    tmp_path: Path, axes: str | None, temporary: Path
) -> None:
    """In any orientation; the temporary folder is removed."""
    pytest.importorskip("nibabel")
    change = directions(axes) if axes else (lambda k: {})
    paths = write_series(tmp_path / "a", T1CE, change=change)  # 3-D, which dcm2niix may rotate
    plain = only(read_dicom(tmp_path / "a"))
    expected = plain.voxels
    pack(paths)
    packed = only(read_dicom(tmp_path / "a"))
    assert packed.geometry.difference(plain.geometry) is None
    assert packed.voxels.dtype == np.uint16
    assert np.array_equal(packed.voxels, expected)
    assert packed.voxels.flags.f_contiguous
    assert packed.facts.contrast_agent == "GADOVIST"
    assert packed.files == plain.files
    assert list(temporary.iterdir()) == []


def directions(axes: str) -> Any:
    """Slices in another orientation, 6 mm apart."""
    unit = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "S": (0, 0, 1)}
    unit["I"] = (0, 0, -1)
    i, j, k = (np.array(unit[letter], float) for letter in axes)

    def change(n: int) -> dict[str, Any]:
        return {"ImageOrientationPatient": [*i, *j], "ImagePositionPatient": list(6.0 * n * k)}

    return change


@needs_dcm2niix
@pytest.mark.usefixtures("no_decoder")
def test_a_warning_names_the_second_reader(tmp_path: Path) -> None:
    pack(write_four(tmp_path)["t2"])
    series = choose(read_series(tmp_path)).series
    assert series["t1"].warnings == ()
    (warning,) = series["t2"].warnings
    assert warning == "read by dcm2niix, as no installed package decodes RLE Lossless"


@needs_dcm2niix
@pytest.mark.usefixtures("no_decoder", "temporary")
def test_several_images_in_one_series(tmp_path: Path) -> None:
    """Two echoes: each image is made of its own files."""
    pack(write_series(tmp_path / "a", T2, header={"EchoTime": 15}))
    again = write_series(tmp_path / "b", T2)
    for path in again:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = pydicom.uid.generate_uid()
        dataset.PixelData = bytes(len(dataset.PixelData) - 2) + b"\x01\x00"
        dataset.save_as(path)
    pack(again)
    by_echo = {series.facts.te_ms: series for series in read_dicom(tmp_path).series}
    assert by_echo[15].voxels[3, 2, 5] == 5203
    assert by_echo[99].voxels[3, 2, 5] == 0


@needs_dcm2niix
@pytest.mark.usefixtures("no_decoder")
def test_damaged_pixels(tmp_path: Path, temporary: Path) -> None:
    paths = write_series(tmp_path / "a", T1)
    pack(paths)
    series = only(read_dicom(tmp_path / "a"))
    for path in paths:
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(
        InputError, match=r"series t1_se_tra \(\w+\): dcm2niix cannot read it: "
    ) as e:
        _ = series.voxels
    assert str(tmp_path) not in str(e.value)
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "exit code 3"),
        ("exit 0", "it made 0 images of it, expected 1"),
        ('while [ "$1" != -o ]; do shift; done; echo x > "$2/image.nii"', "NIfTI"),
        ("sleep 60", "it took more than 0.2 s"),
    ],
)
def test_a_program_that_fails(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    fake = tmp_path / "dcm2niix"
    fake.write_text(f"#!/bin/sh\nexec 2>/dev/null\n{script.replace('sleep', 'exec sleep')}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(dcm2niix, "program", lambda: str(fake))
    monkeypatch.setattr(dcm2niix, "MAX_SECONDS", 0.2 if "sleep" in script else 60)
    series = only(read_dicom(write_series(tmp_path / "a", T1)))
    with pytest.raises(InputError, match="dcm2niix cannot read it: ") as raised:
        dcm2niix.decoded(series.label, series.files, series.geometry)
    assert why in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    assert list(temporary.iterdir()) == []


def test_it_is_found_beside_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheel puts it in a virtual environment that is not activated."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert dcm2niix.program() is None
    (tmp_path / "dcm2niix").touch(0o755)
    assert dcm2niix.program() == str(tmp_path / "dcm2niix")


@needs_dcm2niix
@pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="dcmcjpeg of DCMTK is not installed")
def test_jpeg_lossless(tmp_path: Path) -> None:
    """What most archives send; no small package decodes it."""
    for path in write_series(tmp_path / "a", T1):
        subprocess.run(["dcmcjpeg", "+e1", path, path], check=True)
    assert only(read_dicom(tmp_path / "a")).voxels[3, 2, 5] == 5203


@needs_dcm2niix
def test_a_study_that_it_converted(study: StudyCase, tmp_path: Path) -> None:
    """NIfTI files named by number: their sidecars and the images tell what they are."""
    names = ("-f", "%s", "-z", "y", "-ba", "y")
    subprocess.run(["dcm2niix", *names, "-o", tmp_path, study.folder], capture_output=True)
    found = read_series(tmp_path)
    assert {series.source for series in found.series} == {"nifti"}
    choice = choose(found)
    scans: dict[str, Scan] = {"flair": FLAIR, "t1": T1, "t1ce": T1CE, "t2": T2}
    dicom = {series.name: series for series in read_series(study.folder).series}
    for modality, scan in scans.items():
        series: Series = choice.series[modality]
        assert scan.text in series.facts.texts
        assert series.facts.te_ms == pytest.approx(scan.te_ms)
        place, theirs = dicom[scan.text].geometry, series.geometry
        assert sorted(theirs.shape) == sorted(place.shape)
        assert centre(theirs) == pytest.approx(centre(place), abs=0.01)
        assert series.voxels.mean() == pytest.approx(dicom[scan.text].voxels.mean())


def centre(geometry: Any) -> Any:
    return (geometry.affine @ [*((np.array(geometry.shape) - 1) / 2), 1])[:3]
