"""What looks wrong with a case although each image is fine: mixed-up images, a skull that is still there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError
from fastbts.volume import Volume

SAMPLE = 4  # every fourth voxel along each axis is enough to look for mix-ups
MIN_SAMPLE = 1000  # voxels of it in the brain, for a skewness that means something
MAX_BRAIN_ML = 2500.0  # brains of the 34 BraTS cases: 1170-1750 ml; a head has more than 3000
MAX_NONZERO = 0.9  # of the image; a brain in its bounding box fills half of it
MIN_SKEWNESS = (
    -0.25
)  # 34 BraTS cases: T1ce - T1 1.15 to 4.6, T2 - FLAIR 0.34 to 3.5; swapped files change the sign
SWAPPED = (("t1ce", "t1", "contrast agent"), ("t2", "flair", "fluid"))


def inspected(volume: Volume) -> Volume:
    """Returns the volume with warnings about what is suspicious added to its own.

    Raises:
        CaseError: Two images hold the same voxels.
    """
    sample = _sample(volume)
    _check_distinct(volume, sample)
    with np.errstate(
        all="ignore"
    ):  # absurd intensities are refused by the preprocessing, which names the image
        return replace(
            volume, warnings=(*volume.warnings, *_skulls(volume, sample), *_swaps(volume, sample))
        )


def _sample(volume: Volume) -> NDArray[np.float64]:
    """Copies some voxels of each image, (M, i', j', k'); what is not finite is refused later, with its name."""
    return np.nan_to_num(
        volume.data[:, ::SAMPLE, ::SAMPLE, ::SAMPLE].astype(np.float64), posinf=0.0, neginf=0.0
    )


def _check_distinct(volume: Volume, sample: NDArray[np.float64]) -> None:
    for a, b in combinations(range(len(volume.data)), 2):
        if np.array_equal(sample[a], sample[b]) and np.array_equal(volume.data[a], volume.data[b]):
            raise CaseError(
                f"{volume.names[a]} ({volume.modalities[a]}) and {volume.names[b]} ({volume.modalities[b]}) hold the same voxels; "
                "expected one image per modality; check the export"
            )


def _skulls(volume: Volume, sample: NDArray[np.float64]) -> Iterator[str]:
    image_ml = volume.geometry.voxel_ml * volume.data[0].size
    for modality, image in zip(volume.modalities, sample, strict=True):
        nonzero = np.count_nonzero(image) / image.size
        if nonzero > MAX_NONZERO or nonzero * image_ml > MAX_BRAIN_ML:
            yield (
                f"{modality}: {nonzero:.0%} of the image ({nonzero * image_ml:.0f} ml) is not zero, more than a brain: skull or "
                "background apparently not removed; run a brain extraction first"
            )


def _swaps(volume: Volume, sample: NDArray[np.float64]) -> Iterator[str]:
    """Contrast agent in T1ce and fluid in T2 are bright in few voxels, so the difference to T1 and FLAIR is skewed to the right."""
    images = dict(zip(volume.modalities, sample, strict=True))
    for bright, plain, what in SWAPPED:
        if bright not in images or plain not in images:
            continue
        brain = (images[bright] != 0) & (images[plain] != 0)
        if np.count_nonzero(brain) >= MIN_SAMPLE:
            skewness = _skewness(_z_scores(images[bright][brain]) - _z_scores(images[plain][brain]))
            if skewness < MIN_SKEWNESS:
                yield f"{plain} and {bright} are perhaps swapped: {what} is bright in {plain}, not in {bright}; check the files"


def _z_scores(values: NDArray[Any]) -> NDArray[np.float64]:
    centred = values - values.mean(dtype=np.float64)
    return centred / max(float(centred.std()), np.finfo(np.float64).tiny)


def _skewness(values: NDArray[np.float64]) -> float:
    return float((_z_scores(values) ** 3).mean())
