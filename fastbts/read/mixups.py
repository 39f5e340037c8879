"""Mixed-up images: what the images of a case look like, against what they were given as.

Four simple measures per image and pair of images, each independent of the scanner's units, are
weighted by tables that `scripts/fit_mixups.py` fitted to labelled cases: a multinomial logistic
model of all assignments of images to modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from fastbts.read.sample import Sample, standardised
from fastbts.volume import MODALITIES

MIN_SAMPLE = 1000  # sampled voxels in the brain's core, for measures that mean something
TAIL_SHARE = 0.05  # the darkest and the brightest voxels of an image
# Log-odds by which other names must be more likely, by number of images; fewer say less.
MARGIN = {2: 2.5, 3: 2.0, 4: 0.0}
MAX_CORRELATION = 0.98  # of T1 and T1ce

Weights = NDArray[np.float64]
# Weights by scripts/fit_mixups.py; rows (image i) and columns (j) are FLAIR, T1, T1ce, T2.
# fmt: off
SKEWNESS: Weights = np.array([0.39, -0.65, 0.05, 0.21])
PAIRS: Weights = np.array([
    # correlation
    [[ 0.00, -0.08, -0.05,  0.20],
     [-0.08,  0.00,  0.30, -0.28],
     [-0.05,  0.30,  0.00, -0.09],
     [ 0.20, -0.28, -0.09,  0.00]],
    # skewness of image i - image j
    [[ 0.00,  0.15,  0.01, -0.59],
     [-0.15,  0.00, -0.80, -0.12],
     [-0.01,  0.80,  0.00, -0.28],
     [ 0.59,  0.12,  0.28,  0.00]],
    # mean of image j where image i is brightest
    [[ 0.00, -0.18, -0.17,  0.58],
     [-0.52,  0.00,  0.28, -0.68],
     [ 0.53,  0.43,  0.00,  0.53],
     [ 0.01, -0.40, -0.41,  0.00]],
    # mean of image j where image i is darkest
    [[ 0.00, -0.71, -0.60,  0.57],
     [-0.55,  0.00, -0.54,  0.72],
     [-0.62,  0.20,  0.00,  0.83],
     [-0.29,  0.30,  0.68,  0.00]],
])
# fmt: on


def mixed_up(modalities: Sequence[str], sample: Sample) -> list[str]:
    """Warnings about images that look like other modalities than those they were given as."""
    known = [i for i, modality in enumerate(modalities) if modality in MODALITIES]
    core = sample.core()
    if len(known) < 2 or np.count_nonzero(core) < MIN_SAMPLE:
        return []
    given = [modalities[i] for i in known]
    skewness, pairs = measures(
        sample.images[known].reshape(len(known), -1)[:, np.flatnonzero(core)]
    )
    looks = likely(given, skewness, pairs)
    unclear = _without_contrast(given, pairs)
    if unclear or looks == given:
        return unclear
    return [
        f"the images look like {', '.join(looks)} given as {', '.join(given)}; check the "
        "files, or give their order (order=, nnunet_order=, --nnunet-order)"
    ]


def measures(images: NDArray[np.float32]) -> tuple[Weights, Weights]:
    """What tells modalities apart.

    Args:
        images: (M, n), intensities of the images at the same voxels.
    Returns:
        Skewness of each image, (M,). Of each pair, (4, M, M): correlation; skewness of image i
        less image j; mean of image j where image i is brightest; the same where i is darkest.
    """
    z = np.stack([standardised(image) for image in images])
    n_tail = max(1, int(TAIL_SHARE * z.shape[1]))
    order = np.argpartition(z, (n_tail, -n_tail), axis=1)
    bright = z[:, order[:, -n_tail:]].mean(axis=2).T
    dark = z[:, order[:, :n_tail]].mean(axis=2).T
    difference = np.zeros((len(z), len(z)))
    for i, j in combinations(range(len(z)), 2):
        difference[i, j] = _skewness(z[i] - z[j])
        difference[j, i] = -difference[i, j]
    pairs = np.stack([z @ z.T / z.shape[1], difference, bright, dark]).astype(np.float64)
    pairs[:, np.arange(len(z)), np.arange(len(z))] = 0
    return np.array([_skewness(image) for image in z]), pairs


def likely(given: Sequence[str], skewness: Weights, pairs: Weights) -> list[str]:
    """The names that fit the images best; those given unless others are clearly more likely."""
    roles = assignments(len(given))
    scores = features(skewness, pairs, roles) @ np.concatenate([SKEWNESS, PAIRS.ravel()])
    identity = np.array([MODALITIES.index(name) for name in given])
    as_given = scores[(roles == identity).all(axis=1)][0]
    best = int(scores.argmax())
    if scores[best] - as_given <= MARGIN[len(given)]:
        return list(given)
    return [MODALITIES[role] for role in roles[best]]


def assignments(n_images: int) -> NDArray[np.int64]:
    """All ways to give images different modalities, (n, M), as indices of `MODALITIES`."""
    return np.array(list(permutations(range(len(MODALITIES)), n_images)))


def features(skewness: Weights, pairs: Weights, roles: NDArray[np.int64]) -> Weights:
    """Inputs of the logistic model for each assignment, (n, 4 + 4 * 4 * 4)."""
    n = len(roles)
    single, double = np.zeros((n, 4)), np.zeros((n, 4, 4, 4))
    rows = np.arange(n)[:, None]
    single[rows, roles] = skewness
    for measure, values in enumerate(pairs):
        double[rows[..., None], measure, roles[:, :, None], roles[:, None, :]] = values
    return np.concatenate([single, double.reshape(n, -1)], axis=1)


def _without_contrast(given: Sequence[str], pairs: Weights) -> list[str]:
    if not {"t1", "t1ce"} <= set(given):
        return []
    correlation = pairs[0, given.index("t1"), given.index("t1ce")]
    if correlation < MAX_CORRELATION:
        return []
    return [
        f"t1ce shows no difference to t1 (correlation {correlation:.3f}): was contrast agent "
        "given? expected the image after it; enhancing tumour cannot be found without; check the "
        "files"
    ]


def _skewness(values: NDArray[np.float32]) -> float:
    centred = values - values.mean()
    variance = float((centred * centred).mean())
    return float((centred * centred * centred).mean()) / max(variance**1.5, 1e-30)
