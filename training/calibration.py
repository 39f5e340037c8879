"""How far probabilities can be believed: temperature, expected calibration error, reliability.

All of it is computed from histograms of logits, which add up over cases and make a temperature's likelihood cheap: every voxel
of a bin counts with the logit of the bin's middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fastbts import Segmentation
from fastbts.labels import REGION_LABELS
from fastbts.volume import to_network_axes

LIMIT, STEP = 24.0, 0.01  # logits beyond +-24 have probabilities of 0 or 1 to 4e-11
MIDDLES = np.arange(-LIMIT, LIMIT, STEP) + STEP / 2
N_BINS = 15  # of probability, as in Guo et al. 2017, arXiv 1706.04599
TEMPERATURES = (0.1, 10.0)

Bins = NDArray[np.float64]
Histogram = NDArray[np.int64]
"""Voxels outside and inside a region, by logit: (..., 2, number of MIDDLES)."""


def logit_histogram(logits: NDArray[np.float32], targets: NDArray[np.bool_]) -> Histogram:
    """Counts voxels.

    Args:
        logits: (K, n), finite.
        targets: (K, n), whether the voxel belongs to the region.
    Returns:
        (K, 2, number of MIDDLES).
    """
    n = len(MIDDLES)
    bins = np.clip(((logits + LIMIT) / STEP).astype(np.int64), 0, n - 1)
    return np.stack([np.bincount(b + n * t, minlength=2 * n).reshape(2, n) for b, t in zip(bins, targets, strict=True)])


def brain_logits(result: Segmentation, reference: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits and truth at the voxels where any image is not zero, for `logit_histogram`.

    Args:
        result: Of a prediction.
        reference: Labels (i, j, k) on its grid, BraTS <= 2021 values.
    """
    geometry, box = result.volume.geometry, result.placement.in_volume
    brain = (to_network_axes(result.volume.data, geometry)[(slice(None), *box)] != 0).any(0)
    labels = to_network_axes(reference, geometry)[box][brain]
    targets = np.stack([np.isin(labels, values) for values in REGION_LABELS.values()])
    return result.placement.in_box(result.logits)[:, brain], targets


def mean_nll(histogram: Histogram, temperature: float) -> float:
    """Mean negative log-likelihood per voxel and region, in nats."""
    outside, inside = _merged(histogram)
    z = MIDDLES / temperature
    return float((outside * np.logaddexp(0, z) + inside * np.logaddexp(0, -z)).sum() / max(1, histogram.sum()))


def fit_temperature(histogram: Histogram) -> float:
    """The temperature in 0.1 to 10 that minimises `mean_nll` (Guo et al. 2017)."""
    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(lambda x: mean_nll(histogram, float(np.exp(x))), bounds=(low, high), method="bounded")
    return round(float(np.exp(best.x)), 4)


def reliability(histogram: Histogram, temperature: float = 1.0) -> tuple[Bins, Bins, Bins]:
    """Mean probability, share of voxels in the region, and number of voxels, in each of 15 equal bins of probability.

    Returns:
        Three times (15,); the first two are NaN where a bin is empty.
    """
    counts = _merged(histogram)
    probability = 1 / (1 + np.exp(-MIDDLES / temperature))
    which = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    weights = (counts.sum(0), counts[1], counts.sum(0) * probability)
    n, n_inside, mass = np.array([np.bincount(which, w.astype(np.float64), N_BINS) for w in weights], np.float64)
    with np.errstate(invalid="ignore"):
        return mass / n, n_inside / n, n


def expected_calibration_error(histogram: Histogram, temperature: float = 1.0) -> float:
    """Mean over voxels of |share in the region - mean probability| of their bin."""
    confidence, share, n = reliability(histogram, temperature)
    return float(np.nansum(np.abs(confidence - share) * n) / max(1, n.sum()))


def _merged(histogram: Histogram) -> Histogram:
    """Regions and cases added up: (2, number of MIDDLES)."""
    merged: Histogram = histogram.reshape(-1, 2, len(MIDDLES)).sum(0)
    return merged
