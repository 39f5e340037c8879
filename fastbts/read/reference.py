"""Reference segmentations of labelled cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REFERENCE_SUFFIXES = ("seg.nii.gz", "seg.nii")


def reference_files(folder: Path) -> list[Path]:
    """The files of a case folder that are named like a reference segmentation."""
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(REFERENCE_SUFFIXES))


def read_reference(path: Path) -> NDArray[np.uint8]:
    """A reference segmentation (i, j, k) in values of `brats2021`; reads 3 of BraTS 2023 as 4."""
    import nibabel as nib

    # Not by `read_image`: it refuses an image of one value, such as that of a case without tumour.
    labels = np.asarray(nib.load(path).dataobj).round().astype(np.uint8)
    return np.where(labels == 3, np.uint8(4), labels)
