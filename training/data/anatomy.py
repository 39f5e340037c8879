"""What synthetic cases are made from: label maps of heads, and shapes of tumours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastbts import FastBTSError
from fastbts.labels import ED, ET, NCR
from fastbts.volume import Geometry, to_network_axes

MARGIN_MM = 16
"""What is kept around the brain, so that a bent head never ends at the edge of its map."""

# FreeSurfer's numbers (FreeSurferColorLUT.txt). 24 is the fluid around the brain; SynthSeg numbers what is not brain from 500.
# What is named nowhere (2, 41, brain stem, ...) is white matter.
FLUID = (4, 5, 14, 15, 43, 44, 72)
CORTEX = (3, 8, 17, 18, 42, 47, 53, 54)
NUCLEI = (10, 11, 12, 13, 26, 49, 50, 51, 52, 58)
OUTSIDE = (0, 24)
FIRST_OUTSIDE = 500
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Head:
    """One anatomy, in network axes (Z, Y, X) of RAS+, at 1 mm; the middle of the arrays is that of the brain box.

    Attributes:
        tissue: (D, H, W) uint8: 0 fluid and what is not brain, 1 grey matter, 2 white matter, 3 deep nuclei.
        brain: (D, H, W) float32: share of brain in a neighbourhood of some 7 mm; a level set of it is a smooth brain mask.
        box_mm: Size of the brain box.
    """

    tissue: Tensor
    brain: Tensor
    box_mm: tuple[float, float, float]


def make_head(labels: NDArray[np.integer]) -> Head:
    """Makes a head of FreeSurfer labels (Z, Y, X) at 1 mm.

    Raises:
        FastBTSError: No voxel is brain.
    """
    kind = np.full(max(FIRST_OUTSIDE, int(labels.max())) + 1, 2, np.uint8)
    for value, names in (
        (0, FLUID),
        (1, CORTEX),
        (3, NUCLEI),
        (4, [*OUTSIDE, *range(FIRST_OUTSIDE, len(kind))]),
    ):
        kind[list(names)] = value
    tissue = kind[labels]
    inside = tissue < 4
    if not inside.any():
        raise FastBTSError(
            "label map: no voxel has a FreeSurfer label of the brain; expected labels such as 2, 3, 41, 42"
        )
    found = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    sides = [(int(f[0]), int(f[-1]) + 1) for f in found]
    index = tuple(slice(low, high) for low, high in sides)
    tissue, brain = np.pad(tissue[index] % 4, MARGIN_MM), np.pad(inside[index], MARGIN_MM)
    share = torch.from_numpy(brain.astype(np.float32))[None, None]
    for axis in (0, 1, 2) * 3:
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 7, 3
        share = functional.avg_pool3d(share, size, 1, pad)
    d, h, w = (float(high - low) for low, high in sides)
    return Head(torch.from_numpy(tissue), share[0, 0], (d, h, w))


def read_heads(folder: Path) -> list[Head]:
    """Reads all label maps `*.nii.gz` of a folder, in the order of their names.

    Raises:
        FastBTSError: There is none, or one is not at 1 mm.
    """
    heads = []
    for path in sorted(folder.glob("*.nii.gz")):
        image = nib.load(path)
        geometry = Geometry(image.shape, image.affine)
        if not np.allclose(geometry.spacing_mm, 1, atol=0.01):
            raise FastBTSError(
                f"{path}: spacing {geometry.spacing_mm} mm; expected 1 mm; resample it with nearest neighbours"
            )
        heads.append(
            make_head(to_network_axes(np.asarray(image.dataobj).astype(np.int16), geometry))
        )
    if not heads:
        raise FastBTSError(
            f"{folder}: no *.nii.gz; expected label maps of heads with FreeSurfer labels"
        )
    return heads


class ShapeFile:
    """Tumour label maps in an .npz, read one at a time: uint8 (i, j, k), stored LPS as BraTS does, over its whole field of view.

    Raises:
        FastBTSError: There is no such file, or no map in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FastBTSError(f"{path}: no such file; expected an .npz of tumour label maps")
        self.path, self._stored = path, np.load(path, allow_pickle=False)
        self.names = sorted(self._stored)
        if not self.names:
            raise FastBTSError(f"{path}: holds no array; expected tumour label maps")

    def read(self, number: int) -> NDArray[np.uint8]:
        """Reads one map, in the order of the names, in network axes (d, h, w).

        Raises:
            FastBTSError: It is no label map.
        """
        shape = self._stored[self.names[number]]
        if shape.ndim != 3 or not np.isin(shape, (0, NCR, ED, ET)).all():
            raise FastBTSError(
                f"{self.path}: {self.names[number]}: shape {shape.shape}, labels {np.unique(shape)[:9]}; expected 3 axes and "
                "labels 0, 1, 2, 4"
            )
        return np.ascontiguousarray(to_network_axes(shape, Geometry(shape.shape, LPS)))
