"""What synthetic heads are made of: label maps of heads, and brains of labelled cases, at 1 mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastbts import FastBTSError
from fastbts.pipeline.masks import filled
from training.data.anatomy import CORTEX, FIRST_OUTSIDE, FLUID, NUCLEI, read_label_maps
from training.data.cases import TrainingCase

AIR, CSF, GREY, WHITE, DEEP, BONE, MARROW, FAT = range(8)
"""Kinds of tissue; each label outside the brain that has no kind of its own follows from 8 on."""
SKULL, SOFT_TISSUE, SUBARACHNOID = 515, 507, 24  # SynthSeg's numbers
OUTSIDE = (502, 506, 507, 508, 509, 511, 512, 514, 516, 530)
N_KINDS = FAT + 1 + len(OUTSIDE)
FAT_MM = 6  # soft tissue that is not deeper than this is fat
GAP_MM = 3  # gaps in the brain up to twice as wide belong to the mask: sulci and fissures


@dataclass(frozen=True, eq=False)
class Head:
    """A label map of a head in network axes, (Z, Y, X) of RAS+, at 1 mm.

    Attributes:
        kind: Kind of tissue, uint8 (D, H, W).
        brain: Brain mask, uint8 (D, H, W).
        centre, size: Middle and size of the brain's box, in mm, float64 (3,).
    """

    kind: Tensor
    brain: Tensor
    centre: NDArray[np.float64]
    size: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain of a labelled case in network axes, at 1 mm.

    Attributes:
        images: (M, D, H, W) float16: normalised, 0 outside the brain.
        seen: What the images show, uint8 (D, H, W).
        brain: Brain mask, which has sulci too, uint8 (D, H, W).
        tumour: Labelled tumour, uint8 (D, H, W).
        centre, size: As of `Head`.
    """

    images: Tensor
    seen: Tensor
    brain: Tensor
    tumour: Tensor
    centre: NDArray[np.float64]
    size: NDArray[np.float64]


def make_head(labels: NDArray[np.integer]) -> Head:
    """Makes a head of FreeSurfer's and SynthSeg's labels (Z, Y, X) at 1 mm.

    Raises:
        FastBTSError: No voxel is brain.
    """
    brain = (labels > 0) & (labels < FIRST_OUTSIDE) & (labels != SUBARACHNOID)
    if not brain.any():
        raise FastBTSError(
            "label map: no voxel has a FreeSurfer label of the brain; "
            "expected labels such as 2, 3, 41, 42"
        )
    cut = _box_with_air(labels > 0)
    mask = _mask(brain[cut])
    return Head(torch.from_numpy(_kinds(labels[cut])), _bytes(mask), *_box(mask))


def _mask(brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With sulci and fissures, but without the fluid around the brain, as HD-BET's masks."""
    return filled(~_near(~_near(brain, GAP_MM), GAP_MM) | brain, n_threads=1)


def _kinds(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    table = np.full(max(FIRST_OUTSIDE + 100, int(labels.max()) + 1), WHITE, np.uint8)
    table[FIRST_OUTSIDE:] = FAT + 1 + OUTSIDE.index(SOFT_TISSUE)
    numbers = {CSF: (*FLUID, SUBARACHNOID), GREY: CORTEX, DEEP: NUCLEI, BONE: (SKULL,), AIR: (0,)}
    for kind, of_kind in numbers.items():
        table[list(of_kind)] = kind
    table[list(OUTSIDE)] = FAT + 1 + np.arange(len(OUTSIDE))
    kind = table[labels]
    kind[~_near(labels != SKULL, 1)] = MARROW
    kind[(labels == SOFT_TISSUE) & _near(labels == 0, FAT_MM)] = FAT
    return kind


def _near(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """Voxels at most n away from the mask along each axis."""
    share = torch.from_numpy(mask)[None, None].float()
    for axis in range(3):
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 2 * n + 1, n
        share = functional.max_pool3d(share, size, 1, pad)
    return share[0, 0].numpy() > 0


def make_brain(case: TrainingCase) -> Brain:
    """Takes images and masks of a prepared case, which has 1 mm."""
    pad = [(GAP_MM + 1, GAP_MM + 1)] * 3
    images = np.pad(case.image.astype(np.float16), [(0, 0), *pad])
    inside = filled((images != 0).any(axis=0), n_threads=1)
    brain, tumour = _mask(inside), (np.pad(case.label, pad) > 0) & inside
    seen, covered, sick = (_bytes(mask) for mask in (inside, brain, tumour))
    return Brain(torch.from_numpy(images), seen, covered, sick, *_box(brain))


def _bytes(mask: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(mask.view(np.uint8))


def _box_with_air(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box around a mask with a margin of air."""
    found = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(max(0, int(f[0]) - FAT_MM), int(f[-1]) + 1 + FAT_MM) for f in found)


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and size of the box around a mask, in voxels."""
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0)
    return (low + high) / 2, (high - low + 1).astype(np.float64)


def read_heads(folder: Path) -> list[Head]:
    """Makes a head of each label map of a folder; see `read_label_maps`."""
    return [make_head(labels) for labels in read_label_maps(folder)]


def make_brains(cases: Sequence[TrainingCase]) -> list[Brain]:
    """Makes a brain of each prepared case."""
    return [make_brain(case) for case in cases]
