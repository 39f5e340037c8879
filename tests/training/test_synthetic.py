"""The command that writes synthetic cases."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.training.commands import run
from training.data.synthetic import load_synthetic


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_folder_of_cases(tmp_path: Path) -> None:
    labels = np.full((40, 50, 40), 24, np.int16)
    labels[5:35, 5:45, 5:35] = 2
    (tmp_path / "heads").mkdir()
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "heads/head.nii.gz")
    shape = np.zeros((24, 24, 16), np.uint8)
    shape[10:14, 10:14, 6:10] = 4
    np.savez(tmp_path / "shapes.npz", a=shape)
    files = ("--anatomy", tmp_path / "heads", "--shapes", tmp_path / "shapes.npz")
    assert run("synthetic", *files, "--n", 1, "--seed", 2, "--out", tmp_path / "cases") == 0
    (case,) = load_synthetic(tmp_path / "cases")
    assert case.name == "synthetic_002_0000"
    assert (case.label == 4).any() or (case.label == 1).any()
