"""What synthetic cases are made of: label maps of heads, and shapes of tumours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastbts import FastBTSError
from fastbts.labels import ED, ET, NCR
from fastbts.volume import Geometry, to_network_axes
from training.data.scan import box_mean

MARGIN_MM = 16
"""Margin around the brain, so that a deformed anatomy never reaches the edge of its map."""

# FreeSurfer's numbers (FreeSurferColorLUT.txt). 24 is the fluid around the brain; SynthSeg numbers
# tissue outside the brain from 500. Any other label (2, 41, brain stem, ...) is white matter.
FLUID = (4, 5, 14, 15, 43, 44, 72)
CORTEX = (3, 8, 17, 18, 42, 47, 53, 54)
NUCLEI = (10, 11, 12, 13, 26, 49, 50, 51, 52, 58)
OUTSIDE = (0, 24)
FIRST_OUTSIDE = 500
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One head in network axes, (Z, Y, X) of RAS+, at 1 mm; the brain box is centred.

    Attributes:
        tissue: (D, H, W) uint8: 0 fluid and outside, 1 grey matter, 2 white matter, 3 deep nuclei.
        brain: (D, H, W) float32: share of brain within about 7 mm; its level sets are smooth brain
            masks.
        box_mm: Size of the brain box.
    """

    tissue: Tensor
    brain: Tensor
    box_mm: tuple[float, float, float]


def make_anatomy(labels: NDArray[np.integer]) -> Anatomy:
    """Makes an anatomy of FreeSurfer labels (Z, Y, X) at 1 mm.

    Raises:
        FastBTSError: No voxel is brain.
    """
    tissue = _tissue(labels)
    inside = tissue < 4
    if not inside.any():
        raise FastBTSError(
            "label map: no voxel has a FreeSurfer label of the brain; "
            "expected labels such as 2, 3, 41, 42"
        )
    found = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    sides = [(int(f[0]), int(f[-1]) + 1) for f in found]
    box = tuple(slice(low, high) for low, high in sides)
    tissue, brain = np.pad(tissue[box] % 4, MARGIN_MM), np.pad(inside[box], MARGIN_MM)
    d, h, w = (float(high - low) for low, high in sides)
    return Anatomy(torch.from_numpy(tissue), smooth_share(brain), (d, h, w))


def _tissue(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Tissue as in `Anatomy`, and 4 outside the brain."""
    kind = np.full(max(FIRST_OUTSIDE, int(labels.max())) + 1, 2, np.uint8)
    outside = [*OUTSIDE, *range(FIRST_OUTSIDE, len(kind))]
    for value, numbers in ((0, FLUID), (1, CORTEX), (3, NUCLEI), (4, outside)):
        kind[list(numbers)] = value
    return kind[labels]


def smooth_share(brain: NDArray[np.bool_]) -> Tensor:
    """A brain mask, smoothed by three box filters of 7 voxels along each axis."""
    share = torch.from_numpy(brain.astype(np.float32))
    for _ in range(3):
        share = box_mean(share, 7)
    return share


def read_anatomies(folder: Path) -> list[Anatomy]:
    """Reads all head label maps `*.nii.gz` of a folder, in the order of their names.

    Raises:
        FastBTSError: There is none, or one is not at 1 mm.
    """
    return [make_anatomy(labels) for labels in read_label_maps(folder)]


def read_label_maps(folder: Path) -> Iterator[NDArray[np.int16]]:
    """Reads the head label maps `*.nii.gz` of a folder, by name, in network axes.

    Raises:
        FastBTSError: There is none, or one is not at 1 mm.
    """
    paths = sorted(folder.glob("*.nii.gz"))
    for path in paths:
        image = nib.load(path)
        geometry = Geometry(image.shape, image.affine)
        if not np.allclose(geometry.spacing_mm, 1, atol=0.01):
            raise FastBTSError(
                f"{path}: spacing {geometry.spacing_mm} mm; expected 1 mm; "
                "resample it with nearest neighbours"
            )
        labels = np.asarray(image.dataobj).astype(np.int16)
        yield np.ascontiguousarray(to_network_axes(labels, geometry))
    if not paths:
        raise FastBTSError(
            f"{folder}: no *.nii.gz; expected label maps of heads with FreeSurfer labels"
        )


class ShapeFile:
    """Tumour label maps in an .npz, read one at a time.

    They are uint8 (i, j, k), stored LPS as in BraTS, over the whole field of view of BraTS.

    Raises:
        FastBTSError: The file does not exist or is empty.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FastBTSError(f"{path}: no such file; expected an .npz of tumour label maps")
        with np.load(path, allow_pickle=False) as stored:
            self.path, self.names = path, sorted(stored)
        if not self.names:
            raise FastBTSError(f"{path}: contains no array; expected tumour label maps")

    def read(self, number: int) -> NDArray[np.uint8]:
        """Reads one map, in the order of the names, in network axes (d, h, w).

        Raises:
            FastBTSError: It is not a label map.
        """
        # Opened anew: processes that make cases would share the position in an open file.
        with np.load(self.path, allow_pickle=False) as stored:
            shape = stored[self.names[number]]
        if shape.ndim != 3 or not np.isin(shape, (0, NCR, ED, ET)).all():
            raise FastBTSError(
                f"{self.path}: {self.names[number]}: shape {shape.shape}, "
                f"labels {np.unique(shape)[:9]}; expected 3 axes and labels 0, 1, 2, 4"
            )
        return np.ascontiguousarray(to_network_axes(shape, Geometry(shape.shape, LPS)))
