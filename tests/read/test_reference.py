"""Reference segmentations: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import CaseError, InputError
from fastbts.read.reference import find_reference, read_labels, read_reference
from tests.read.hostile_nifti import HEADERS, SHAPE, STREAMS, Hostile, nifti

LABELS = np.arange(60, dtype="<i2").reshape(SHAPE, order="F") % 5


def written(folder: Path, content: bytes) -> Path:
    path = folder / "seg.nii.gz"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "i8"])
def test_labels_of_any_dtype(tmp_path: Path, dtype: str) -> None:
    path = written(tmp_path, nifti(LABELS.astype(dtype)))
    labels, reference = read_labels(path), read_reference(path)
    assert labels.dtype == reference.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(reference, np.where(LABELS == 3, 4, LABELS))


@pytest.mark.parametrize("value", [0, 2])
def test_one_value_is_enough(tmp_path: Path, value: int) -> None:
    labels = read_labels(written(tmp_path, nifti(np.full(SHAPE, value, "<i2"))))
    assert labels.shape == SHAPE
    assert (labels == value).all()


def test_scaled_labels(tmp_path: Path) -> None:
    """A slope alone counts here, unlike in images; and nibabel scales floats to integers."""
    labels = read_labels(written(tmp_path, nifti(LABELS * 2, scl_slope=0.5)))
    np.testing.assert_array_equal(labels, LABELS)
    image = nib.Nifti1Image(LABELS.astype(np.float32), np.eye(4))
    image.header.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "scaled_seg.nii")
    np.testing.assert_array_equal(read_labels(tmp_path / "scaled_seg.nii"), LABELS)


@pytest.mark.parametrize(
    ("value", "dtype", "got"),
    [
        (5, "u1", "got 5"),
        (-1, "i2", "got -1"),
        (256, "i2", "got 256"),
        (2**63, "u8", "got 9.22337e"),
        (1.5, "f4", "got 1.5"),
        (1e30, "f4", "got 1e"),
        (np.nan, "f4", "1 voxels are NaN or infinite"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, value: float, dtype: str, got: str) -> None:
    voxels = LABELS.astype(dtype)
    voxels[0, 0, 0] = value
    with pytest.raises(InputError, match=rf"seg\.nii\.gz: .*{got}"):
        read_reference(written(tmp_path, nifti(voxels)))


@pytest.mark.parametrize("hostile", [*HEADERS, *STREAMS], ids=lambda hostile: hostile.name)
def test_damaged_files_are_refused(tmp_path: Path, hostile: Hostile) -> None:
    with pytest.raises(hostile.error, match=hostile.message) as caught:
        read_reference(written(tmp_path, hostile.make()))
    assert "seg.nii.gz" in str(caught.value)


def test_one_reference_in_a_folder(tmp_path: Path) -> None:
    assert find_reference(tmp_path) is None
    (tmp_path / "case_t1.nii.gz").touch()
    (tmp_path / "case_SEG.nii.gz").touch()
    assert find_reference(tmp_path) == tmp_path / "case_SEG.nii.gz"
    (tmp_path / "case_seg.nii").touch()
    with pytest.raises(CaseError, match=r"got case_SEG.nii.gz, case_seg.nii; remove all but one"):
        find_reference(tmp_path)
