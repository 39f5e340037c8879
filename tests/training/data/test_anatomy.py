"""Anatomies of a few labelled voxels, and files of tumour shapes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fastbts import FastBTSError
from training.data.anatomy import MARGIN_MM, ShapeFile, make_anatomy, read_anatomies


def test_anatomy_by_hand() -> None:
    labels = np.zeros((3, 4, 5), int)
    labels[1, 1] = 24, 3, 2, 10, 4
    labels[1, 2] = 0, 507, 16, 53, 14
    found = make_anatomy(labels)
    assert found.box_mm == (1, 2, 4), "neither the fluid around the brain nor the skull is brain"
    middle = (slice(MARGIN_MM, -MARGIN_MM),) * 3
    assert found.tissue[middle].tolist() == [[[1, 2, 3, 0], [0, 2, 1, 0]]], (
        "grey 1, white 2, nuclei 3, fluid 0"
    )
    with pytest.raises(FastBTSError, match="no voxel has a FreeSurfer label"):
        make_anatomy(np.full((3, 3, 3), 24))


def test_anatomies_are_read_in_any_orientation(tmp_path: Path) -> None:
    labels = np.full((4, 5, 6), 2, np.int16)
    labels[0] = 3  # stored LIA: the first i is the patient's right, the last of the network's W
    lia = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(labels, lia), tmp_path / "head.nii.gz")
    (found,) = read_anatomies(tmp_path)
    assert found.box_mm == (5, 6, 4)
    assert (
        found.tissue[MARGIN_MM + 2, MARGIN_MM + 2, MARGIN_MM:-MARGIN_MM]
        == torch.tensor([2, 2, 2, 1])
    ).all()
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2, 2, 1])), tmp_path / "head.nii.gz")
    with pytest.raises(FastBTSError, match="expected 1 mm"):
        read_anatomies(tmp_path)
    with pytest.raises(FastBTSError, match=r"no \*\.nii\.gz"):
        read_anatomies(tmp_path / "nowhere")


def test_shapes_are_read_as_brats_stores_them(tmp_path: Path) -> None:
    stored = np.zeros((3, 4, 5), np.uint8)
    stored[0, 1, 2] = 4
    np.savez(tmp_path / "a.npz", a=stored, b=stored + 3)
    assert np.argwhere(ShapeFile(tmp_path / "a.npz").read(0)).tolist() == [[2, 2, 2]], (
        "k, then j and i backwards"
    )
    with pytest.raises(FastBTSError, match=r"b: shape .* expected 3 axes and labels 0, 1, 2, 4"):
        ShapeFile(tmp_path / "a.npz").read(1)
    with pytest.raises(FastBTSError, match="no such file"):
        ShapeFile(tmp_path / "nothing.npz")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(FastBTSError, match="contains no array"):
        ShapeFile(tmp_path / "empty.npz")
