"""`.seg.nrrd` as 3D Slicer reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastbts.errors import DeviceError, InputError
from fastbts.labels import ED, ET, NCR
from fastbts.volume import Geometry
from fastbts.write.nrrd import write_nrrd
from fastbts.write.ours import is_ours

nrrd = pytest.importorskip("nrrd", reason="needs fastbts[nrrd]")

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 0, 3, 20], [0, 1, 0, -5], [0, 0, 0, 1]])
GEOMETRY = Geometry((6, 5, 4), AFFINE)


@pytest.fixture
def labels() -> np.ndarray:
    made = np.zeros(GEOMETRY.shape, np.uint8)
    made[1:5, 1:4, 1:3] = ED
    made[2, 2, 1] = NCR
    return made


def test_voxels_and_place_by_hand(tmp_path: Path, labels: np.ndarray) -> None:
    write_nrrd(tmp_path / "a.seg.nrrd", labels, GEOMETRY)
    data, header = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    assert np.array_equal(data, labels)
    assert data.dtype == np.uint8
    assert header["space"] == "left-posterior-superior"
    assert header["space directions"].tolist() == [[2, 0, 0], [0, 0, 1], [0, -3, 0]]
    assert header["space origin"].tolist() == [-10, -20, -5]
    assert "research use only" in header["content"]


def test_segments(tmp_path: Path, labels: np.ndarray) -> None:
    write_nrrd(tmp_path / "a.seg.nrrd", labels, GEOMETRY)
    header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
    names = [header[f"Segment{n}_Name"] for n in range(3)]
    assert names == ["Necrotic core", "Peritumoral oedema", "Enhancing tumour"]
    assert [header[f"Segment{n}_LabelValue"] for n in range(3)] == [str(v) for v in (NCR, ED, ET)]
    assert header["Segment1_Extent"] == "1 4 1 3 1 2"
    assert header["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    assert "~SCT^79654002^Edema~" in header["Segment1_Tags"]
    assert header["Segmentation_SourceRepresentation"] == "Binary labelmap"


def test_equal_labels_give_equal_files(tmp_path: Path, labels: np.ndarray) -> None:
    for name in "ab":
        write_nrrd(tmp_path / name, labels, GEOMETRY)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_wrong_labels(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8 labels of shape"):
        write_nrrd(tmp_path / "a", labels[:3], GEOMETRY)
    assert list(tmp_path.iterdir()) == []


def test_without_pynrrd(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(DeviceError, match=r"nrrd is not .* pip install 'fastbts\[nrrd\]'"):
        write_nrrd(tmp_path / "a", labels, GEOMETRY)


def test_files_of_ours_are_known_until_somebody_corrects_them(
    tmp_path: Path, labels: np.ndarray
) -> None:
    path = tmp_path / "a.seg.nrrd"
    write_nrrd(path, labels, GEOMETRY)
    assert is_ours(path)
    data, header = nrrd.read(str(path))
    data[0, 0, 0] = ET
    nrrd.write(str(path), data, header)
    assert not is_ours(path)
    path.write_bytes(b"NRRD0004\n\nnothing")
    assert not is_ours(path)
