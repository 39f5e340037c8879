"""Images of another place or patient: whether brains and edges of a case's images coincide.

Limits were chosen on 85 labelled BraTS cases (2018, 2019, 2021, Africa): the worst pair of brains
has a Dice above 0.98 in 84; in one FLAIR covers two thirds of the brain (0.80). The edges of each
image correlate by at least 0.32 with those of another one, and less when it is mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError
from fastbts.read.sample import Floats, Mask, Sample, clipped, shrunk

MIN_SAMPLE = 1000  # sampled voxels, for figures that mean something
MIN_DICE, REFUSED_DICE = 0.97, 0.5
MIN_EDGES = 0.28
TAIL = 0.02  # share of the intensities that is clipped at each end before edges are compared

Matrix = NDArray[np.float64]
ADVICE = "check the files, register the images with each other"


def misplaced(modalities: Sequence[str], names: Sequence[str], sample: Sample) -> list[str]:
    """Warnings about images that do not show the same place as the others.

    Args:
        modalities: Names of the images.
        names: Where they came from.
        sample: Of the images.
    Raises:
        GeometryError: Two brains have little in common.
    """
    if len(modalities) < 2 or np.count_nonzero(sample.masks.any(axis=0)) < MIN_SAMPLE:
        return []
    return [*_brains(modalities, names, sample), *_edges(modalities, sample)]


def _brains(modalities: Sequence[str], names: Sequence[str], sample: Sample) -> Iterator[str]:
    """Compares where the images differ from their backgrounds."""
    index = np.flatnonzero(sample.usable)
    if len(index) < 2:
        return
    dice = _dice(sample.masks[index].reshape(len(index), -1))
    worst = float(dice.min())
    if worst >= MIN_DICE:
        return
    # Of the worst pair, the image that fits the others less is named first.
    pair = sorted(np.unravel_index(dice.argmin(), dice.shape), key=lambda i: float(dice[i].sum()))
    a, b = (int(index[i]) for i in pair)
    if worst < REFUSED_DICE:
        raise GeometryError(
            f"{names[a]}: its brain and that of {names[b]} have a Dice of {worst:.2f}; expected at "
            f"least {MIN_DICE}: they show different places, or one is not complete; {ADVICE}"
        )
    yield (
        f"{modalities[a]}: its brain and that of {modalities[b]} have a Dice of {worst:.3f}, "
        f"expected at least {MIN_DICE}: it may be shifted, mirrored, incomplete or of another "
        f"patient; {ADVICE}"
    )


def _dice(masks: Mask) -> Matrix:
    """Dice of each pair of masks (M, n); 1 where both are empty."""
    weights = masks.astype(np.float32)
    common = (weights @ weights.T).astype(np.float64)
    sizes = common.diagonal()
    total = sizes[:, None] + sizes
    dice: Matrix = np.where(total > 0, 2 * common / np.maximum(total, 1), 1.0)
    return dice


def _edges(modalities: Sequence[str], sample: Sample) -> Iterator[str]:
    """Compares where the images have edges: as they are, and each one mirrored left to right."""
    inside = shrunk(sample.brain, (1, 1, 1))
    if np.count_nonzero(inside) < MIN_SAMPLE:
        return
    maps = _edge_maps(sample.images, sample.brain)
    flipped, both = _mirrored(maps, inside)
    agreement = _correlations(_at(maps, inside), _at(maps, inside))
    mirrored = _correlations(_at(flipped, both), _at(maps, both))
    np.fill_diagonal(agreement, -1)
    np.fill_diagonal(mirrored, -1)
    best, best_mirrored = agreement.max(axis=1), mirrored.max(axis=1)
    worst = int((best - best_mirrored).argmin())
    if best_mirrored[worst] > max(best[worst], MIN_EDGES):
        yield (
            f"{modalities[worst]}: its edges fit the other images better when it is mirrored left "
            f"to right (correlation {best_mirrored[worst]:.2f} instead of {best[worst]:.2f}); "
            "check its orientation"
        )
        return
    worst = int(best.argmin())
    if best[worst] < MIN_EDGES:
        yield (
            f"{modalities[worst]}: its edges do not fit the other images (correlation "
            f"{best[worst]:.2f}, expected at least {MIN_EDGES}): it may be shifted, of another "
            f"patient, or of poor quality; {ADVICE}"
        )


def _edge_maps(images: Floats, brain: Mask) -> Floats:
    """Magnitude of the gradient (M, D, H, W), in units of each image; 0 at the grid's border."""
    maps, index = np.zeros_like(images), np.flatnonzero(brain)
    for image, edges in zip(images, maps, strict=True):
        v = clipped(image, image.ravel()[index], TAIL)
        d = v[2:, 1:-1, 1:-1] - v[:-2, 1:-1, 1:-1]
        h = v[1:-1, 2:, 1:-1] - v[1:-1, :-2, 1:-1]
        w = v[1:-1, 1:-1, 2:] - v[1:-1, 1:-1, :-2]
        edges[1:-1, 1:-1, 1:-1] = np.sqrt(d * d + h * h + w * w)
    return maps


def _mirrored(maps: Floats, inside: Mask) -> tuple[Floats, Mask]:
    """Maps mirrored left to right about the brain's middle; where they and the others count."""
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    brain = slice(int(columns[0]), int(columns[-1]) + 1)
    flipped, both = np.zeros_like(maps), np.zeros_like(inside)
    flipped[..., brain] = maps[..., brain][..., ::-1]
    both[..., brain] = inside[..., brain] & inside[..., brain][..., ::-1]
    return flipped, both


def _at(maps: Floats, mask: Mask) -> Floats:
    """Values of maps (M, D, H, W) in a mask, (M, n)."""
    values: Floats = np.take(maps.reshape(len(maps), -1), np.flatnonzero(mask), axis=1)
    return values


def _correlations(a: Floats, b: Floats) -> Matrix:
    """Correlation of each row of a (M, n) with each row of b (M, n)."""
    matrix: Matrix = (_unit(a) @ _unit(b).T).astype(np.float64)
    return matrix


def _unit(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    unit: Floats = centred / np.maximum(length, np.float32(1e-30))
    return unit
