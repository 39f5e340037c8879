"""Calibration of probabilities: temperature, expected calibration error, reliability.

All of it is computed from histograms of logits. They add up over cases and make the likelihood of a
temperature cheap: each voxel counts with the logit of its bin's middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fastbts import Segmentation
from fastbts.spec import REGIONS
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
    return np.stack(
        [
            np.bincount(b + n * t, minlength=2 * n).reshape(2, n)
            for b, t in zip(bins, targets, strict=True)
        ]
    )


def brain_logits(
    result: Segmentation, reference: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits and reference at the brain voxels, where any image is not zero.

    Args:
        result: Of a prediction.
        reference: Labels (i, j, k) on its grid, of the result's regions.
    Returns:
        Logits (K, n) and whether each voxel is in the region, (K, n), for `logit_histogram`.
    """
    geometry, box = result.volume.geometry, result.placement.in_volume
    brain = (to_network_axes(result.volume.data, geometry)[(slice(None), *box)] != 0).any(0)
    labels = to_network_axes(reference, geometry)[box][brain]
    targets = np.stack([np.isin(labels, values) for values in result.regions.values()])
    return result.placement.in_box(result.logits)[:, brain], targets


def mean_nll(histogram: Histogram, temperature: float) -> float:
    """Mean negative log-likelihood per voxel and region, in nats.

    Args:
        histogram: Of one region, (2, number of MIDDLES), or of several, (K, 2, ...).
        temperature: Divisor of the logits.
    """
    outside, inside = histogram.reshape(-1, 2, len(MIDDLES)).sum(0)
    z = MIDDLES / temperature
    total = (outside * np.logaddexp(0, z) + inside * np.logaddexp(0, -z)).sum()
    return float(total / max(1, histogram.sum()))


def fit_temperature(histogram: Histogram) -> float:
    """The temperature in 0.1 to 10 that minimises `mean_nll` (Guo et al. 2017)."""
    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(
        lambda x: mean_nll(histogram, float(np.exp(x))), bounds=(low, high), method="bounded"
    )
    return round(float(np.exp(best.x)), 4)


def reliability(region: Histogram, temperature: float = 1.0) -> tuple[Bins, Bins, Bins]:
    """Reliability in 15 equal bins of probability.

    Args:
        region: Histogram of one region, (2, number of MIDDLES).
        temperature: Divisor of the logits.
    Returns:
        Mean probability, share of voxels in the region, and number of voxels, each (15,); the first
        two are NaN where a bin is empty.
    Raises:
        ValueError: Not the histogram of one region. In a sum over regions, one that is too high
            would hide another that is too low.
    """
    if region.shape != (2, len(MIDDLES)):
        raise ValueError(
            f"histogram of shape {region.shape}: expected that of one region, (2, {len(MIDDLES)})"
        )
    probability = 1 / (1 + np.exp(-MIDDLES / temperature))
    which = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    weights = (region.sum(0), region[1], region.sum(0) * probability)
    n, n_inside, mass = np.array(
        [np.bincount(which, w.astype(np.float64), N_BINS) for w in weights], np.float64
    )
    with np.errstate(invalid="ignore"):
        return mass / n, n_inside / n, n


def expected_calibration_error(region: Histogram, temperature: float = 1.0) -> float:
    """Mean over voxels of |share in the region - mean probability| of their bin; one region."""
    confidence, share, n = reliability(region, temperature)
    return float(np.nansum(np.abs(confidence - share) * n) / max(1, n.sum()))


def calibration_errors(
    histogram: Histogram, temperatures: Sequence[float], regions: Sequence[str] = REGIONS
) -> dict[str, float]:
    """Expected calibration error of each region, and "mean", the mean of all.

    Args:
        histogram: Of the regions, (K, 2, number of MIDDLES).
        temperatures: Divisors of each region's logits.
        regions: Their names.
    """
    errors = {
        r: expected_calibration_error(h, t)
        for r, h, t in zip(regions, histogram, temperatures, strict=True)
    }
    return {**errors, "mean": fmean(errors.values())}


def calibration_record(
    histogram: Histogram, temperatures: Sequence[float], names: Sequence[str] = REGIONS
) -> dict[str, Any]:
    """Calibration at an engine's temperatures, as plain values for JSON.

    Returns:
        "ece", see `calibration_errors`, and "ece_uncalibrated", of the logits as they are;
        "temperatures" and "best_temperatures" for these cases: a region whose best one is above the
        engine's is over-confident, below it under-confident; "reliability", region -> three lists
        over bins, None where a bin is empty; "bins", "voxels" and "n_voxels".
    """
    regions = dict(zip(names, histogram, strict=True))
    own = dict(zip(names, temperatures, strict=True))
    return {
        "ece": calibration_errors(histogram, temperatures, names),
        "ece_uncalibrated": calibration_errors(histogram, (1.0,) * len(regions), names),
        "temperatures": own,
        "best_temperatures": {name: fit_temperature(region) for name, region in regions.items()},
        "reliability": {name: _diagram(regions[name], t) for name, t in own.items()},
        "bins": N_BINS,
        "voxels": "brain",
        "n_voxels": int(histogram[0].sum()),
    }


def _diagram(region: Histogram, temperature: float) -> dict[str, list[float | None]]:
    names = ("probability", "share", "n")
    return {
        name: [None if np.isnan(x) else round(float(x), 6) for x in values]
        for name, values in zip(names, reliability(region, temperature), strict=True)
    }
