"""A head of nested blocks, a file with one tumour, and a case: what synthetic heads are made of."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from training.data.cases import TrainingCase

SIZE = 64  # of the head, in voxels of 1 mm


def head_labels() -> NDArray[np.int16]:
    """From outside: air, skin, soft tissue, skull, fluid, cortex, white matter, a ventricle."""
    labels = np.zeros((SIZE + 16,) * 3, np.int16)
    shells = ((511, 0), (507, 2), (515, 6), (24, 10), (3, 13), (2, 18), (4, 29))
    for label, depth in shells:
        side = slice(8 + depth, 8 + SIZE - depth)
        labels[side, side, side] = label
    labels[40, 40, 8 + 13 : 8 + 18] = 24  # a sulcus
    return labels


def write_head(folder: Path) -> Path:
    """Writes the head into a folder, as `read_heads` expects it."""
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(head_labels(), np.eye(4)), folder / "head.nii.gz")
    return folder


def write_shape(path: Path) -> Path:
    """Writes one tumour: a rim around a core in oedema, 107 mm wide, in the field of view."""
    shape = np.zeros((48, 48, 32), np.uint8)
    for label, half in ((2, 11), (4, 8), (1, 5)):
        shape[24 - half : 24 + half, 24 - half : 24 + half, 15 - half : 15 + half] = label
    np.savez(path, one=shape)
    return path


def block_case() -> TrainingCase:
    """A brain of 41 x 40 x 38 voxels at 1 mm, with a tumour at its surface."""
    rng = np.random.default_rng(0)
    image = np.zeros((4, 41, 40, 38), np.float16)
    image[:, 2:-2, 2:-2, 2:-2] = rng.normal(0, 1, (4, 37, 36, 34))
    label = np.zeros((41, 40, 38), np.uint8)
    label[2:12, 10:20, 10:20] = 2
    label[4:8, 12:16, 12:16] = 4
    return TrainingCase("block", image, label)
