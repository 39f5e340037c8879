"""Quality control of a case of valid images: mixed-up images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError
from fastbts.volume import Volume

SAMPLE = 4  # every fourth voxel along each axis is enough to find mix-ups
MIN_SAMPLE = 1000  # sampled voxels in the brain, for a skewness that means something
# 34 BraTS cases: T1ce - T1 1.15 to 4.6, T2 - FLAIR 0.34 to 3.5; swapped files change the sign.
MIN_SKEWNESS = -0.25
SWAPPED = (("t1ce", "t1", "contrast agent"), ("t2", "flair", "fluid"))


def inspected(volume: Volume) -> Volume:
    """Returns the volume with warnings about its quality added to its own.

    Raises:
        CaseError: Two images hold the same voxels.
    """
    sample = _sample(volume)
    _check_distinct(volume, sample)
    # Absurd intensities may overflow here; normalize refuses them and names the image.
    with np.errstate(all="ignore"):
        warnings = tuple(_swaps(volume, sample))
    return replace(volume, warnings=(*volume.warnings, *warnings))


def _sample(volume: Volume) -> NDArray[np.float64]:
    """Some voxels of each image, (M, i', j', k'); normalize refuses what is not finite."""
    some = volume.data[:, ::SAMPLE, ::SAMPLE, ::SAMPLE].astype(np.float64)
    return np.nan_to_num(some, posinf=0.0, neginf=0.0)


def _check_distinct(volume: Volume, sample: NDArray[np.float64]) -> None:
    names = [f"{n} ({m})" for n, m in zip(volume.names, volume.modalities, strict=True)]
    for a, b in combinations(range(len(volume.data)), 2):
        if np.array_equal(sample[a], sample[b]) and np.array_equal(volume.data[a], volume.data[b]):
            raise CaseError(
                f"{names[a]} and {names[b]} hold the same voxels; expected one image per "
                "modality; check the export"
            )


def _swaps(volume: Volume, sample: NDArray[np.float64]) -> Iterator[str]:
    """Contrast agent in T1ce and fluid in T2 are bright in few voxels.

    So the difference to T1 and FLAIR is skewed to the right, unless the images are swapped.
    """
    images = dict(zip(volume.modalities, sample, strict=True))
    for bright, plain, what in SWAPPED:
        if bright not in images or plain not in images:
            continue
        brain = (images[bright] != 0) & (images[plain] != 0)
        if np.count_nonzero(brain) >= MIN_SAMPLE:
            skewness = _skewness(_z_scores(images[bright][brain]) - _z_scores(images[plain][brain]))
            if skewness < MIN_SKEWNESS:
                yield (
                    f"{plain} and {bright} may be swapped: {what} is bright in {plain}, not in "
                    f"{bright}; check the files"
                )


def _z_scores(values: NDArray[Any]) -> NDArray[np.float64]:
    centred = values - values.mean(dtype=np.float64)
    return centred / max(float(centred.std()), np.finfo(np.float64).tiny)


def _skewness(values: NDArray[np.float64]) -> float:
    return float((_z_scores(values) ** 3).mean())
