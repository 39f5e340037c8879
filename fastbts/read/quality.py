"""Quality control of a case of valid images: whether they fit their names and each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from fastbts.device.arrays import on_host
from fastbts.errors import CaseError
from fastbts.read.alignment import misplaced
from fastbts.read.mixups import mixed_up
from fastbts.read.sample import Coarse, Sample
from fastbts.volume import Volume


def inspected(volume: Volume, coarse: Coarse | None = None) -> Volume:
    """Returns the volume with warnings about its quality added to its own.

    Args:
        volume: The case.
        coarse: What `Coarse.of` returned for it, where it is on a device.

    Raises:
        CaseError: Two images hold the same voxels.
        GeometryError: Two images show different places.
    """
    sample = Sample.of(volume, coarse)
    _check_distinct(volume, sample)
    warnings = (
        *misplaced(volume.modalities, volume.names, sample),
        *mixed_up(volume.modalities, sample),
    )
    return replace(volume, warnings=(*volume.warnings, *warnings))


def _check_distinct(volume: Volume, sample: Sample) -> None:
    names = [f"{n} ({m})" for n, m in zip(volume.names, volume.modalities, strict=True)]
    for a, b in combinations(range(len(volume.data)), 2):
        alike = np.array_equal(sample.images[a], sample.images[b])
        if alike and np.array_equal(on_host(volume.data[a]), on_host(volume.data[b])):
            raise CaseError(
                f"{names[a]} and {names[b]} hold the same voxels; expected one image per "
                "modality; check the export"
            )
