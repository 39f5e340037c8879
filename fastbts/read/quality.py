"""Quality control of a case of valid images: each image alone, and all of them together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from fastbts.errors import CaseError
from fastbts.read.alignment import misplaced
from fastbts.read.mixups import mixed_up
from fastbts.read.sample import Sample
from fastbts.volume import Volume

MAX_BRAIN_ML = 2500.0  # brains of the 34 BraTS cases: 1170-1750 ml; a head has more than 3000
MAX_NONZERO = 0.9  # of the image; a brain in its bounding box fills half of it


def inspected(volume: Volume) -> Volume:
    """Returns the volume with warnings about its quality added to its own.

    Raises:
        CaseError: Two images hold the same voxels.
        GeometryError: Two images show different places.
    """
    sample = Sample.of(volume)
    _check_distinct(volume, sample)
    warnings = (
        *_skulls(volume, sample),
        *misplaced(volume.modalities, volume.names, sample),
        *mixed_up(volume.modalities, sample),
    )
    return replace(volume, warnings=(*volume.warnings, *warnings))


def _check_distinct(volume: Volume, sample: Sample) -> None:
    names = [f"{n} ({m})" for n, m in zip(volume.names, volume.modalities, strict=True)]
    for a, b in combinations(range(len(volume.data)), 2):
        alike = np.array_equal(sample.images[a], sample.images[b])
        if alike and np.array_equal(volume.data[a], volume.data[b]):
            raise CaseError(
                f"{names[a]} and {names[b]} hold the same voxels; expected one image per "
                "modality; check the export"
            )


def _skulls(volume: Volume, sample: Sample) -> Iterator[str]:
    image_ml = volume.geometry.voxel_ml * volume.data[0].size
    for modality, nonzero in zip(volume.modalities, sample.nonzero, strict=True):
        if nonzero > MAX_NONZERO or nonzero * image_ml > MAX_BRAIN_ML:
            yield (
                f"{modality}: {nonzero:.0%} of the image ({nonzero * image_ml:.0f} ml) is not "
                "zero, too much for a brain: the skull or the background was probably not "
                "removed; run a brain extraction first"
            )
