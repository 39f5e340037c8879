"""The brain mask of raw images, by an engine with one input (any image of a head) and one region.

Such an engine is trained by the recipe `brain`. Its images are scaled here, not z-scored: without a
mask there are no brain voxels to take statistics of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.engine.interface import Engine
from fastbts.errors import OptionsError
from fastbts.pipeline.label import least_logits
from fastbts.pipeline.masks import Mask, filled, largest_part
from fastbts.pipeline.normalize import padded_size
from fastbts.spec import EngineSpec
from fastbts.volume import Geometry, to_network_axes


def brain_mask(
    images: Sequence[NDArray[Any]], geometry: Geometry, engine: Engine, n_threads: int = 0
) -> Mask:
    """Finds the brain in one image of a head, or in several by the median of their logits.

    An image that is 0 in a voxel, as outside its field of view, has no say there, unless all are.

    Args:
        images: Each (i, j, k) on `geometry`, finite; in any order.
        geometry: Their grid.
        engine: Has one input and one region.
        n_threads: 0 for all CPUs.
    Returns:
        Brain mask (i, j, k): the largest part, without holes.
    Raises:
        OptionsError: The engine has other inputs or regions, or no image was given.
    """
    spec = engine.spec
    if len(spec.modalities) != 1 or len(spec.regions) != 1 or not images:
        raise OptionsError(
            f"{spec.name}: expected an engine with one input and one region, and at least one "
            f"image; got {len(spec.modalities)}, {len(spec.regions)} and {len(images)} images; "
            "use an engine of the recipe brain"
        )
    full = to_network_axes(images[0], geometry).shape
    logits = ops.resample(_vote(images, geometry, engine, n_threads)[None], full, n_threads)[0]
    found = logits > least_logits(spec)[0]
    cleaned = filled(largest_part(found, n_threads), n_threads) if found.any() else found
    mask = np.zeros(geometry.shape, bool)
    to_network_axes(mask, geometry)[...] = cleaned
    return mask


def _vote(
    images: Sequence[NDArray[Any]], geometry: Geometry, engine: Engine, n_threads: int
) -> NDArray[np.float32]:
    """Median of the logits of the images that show something in a voxel, (d, h, w).

    The median, because images err in different places: in the T2, fluid looks like brain.
    """
    logits, shown = [], []
    for image in images:
        tensor, seen = head_tensor(
            to_network_axes(image, geometry), geometry, engine.spec, n_threads
        )
        d, h, w = seen.shape
        logits.append(engine.infer(tensor[None])[0, 0, :d, :h, :w])
        shown.append(seen)
    return _median(np.stack(logits), np.stack(shown))


def _median(values: NDArray[np.float32], shown: Mask) -> NDArray[np.float32]:
    """Median over the first axis of the values that are shown; of all where none is."""
    counts = shown | ~shown.any(axis=0)
    ordered = np.sort(np.where(counts, values, np.float32(np.inf)), axis=0)
    n = counts.sum(axis=0)[None]
    low, high = (
        np.take_along_axis(ordered, middle, axis=0)[0] for middle in ((n - 1) // 2, n // 2)
    )
    median: NDArray[np.float32] = (low + high) / 2
    return median


def head_tensor(
    image: NDArray[Any], geometry: Geometry, spec: EngineSpec, n_threads: int = 0
) -> tuple[NDArray[np.float32], Mask]:
    """Input of the engine for an image in network axes.

    Returns:
        The image at `spec.spacing_mm`, scaled, with zeros at the end of each axis, (1, D, H, W);
        and without them, where it is not 0: (d, h, w).
    """
    spacing = [0.0, 0.0, 0.0]
    for axis, (patient_axis, _) in enumerate(geometry.ras_axes):
        spacing[2 - patient_axis] = geometry.spacing_mm[axis]
    size = [
        max(1, round(n * mm / spec.spacing_mm)) for n, mm in zip(image.shape, spacing, strict=True)
    ]
    small = _resampled(image, size, n_threads)
    d, h, w = size
    tensor = np.zeros((1, *padded_size((d, h, w), spec.stride)), np.float32)
    tensor[0, :d, :h, :w] = scaled(small, spec.percentiles)
    return tensor, small != 0


def _resampled(image: NDArray[Any], size: Sequence[int], n_threads: int) -> NDArray[np.float32]:
    """Halves the resolution (means of pairs) until linear interpolation skips no voxel."""
    tensor = image.astype(np.float32, order="C")[None]  # native byte order, too
    while True:
        now = tensor.shape[1:]
        d, h, w = (
            -(-n // 2) if n >= 2 * wanted else wanted for n, wanted in zip(now, size, strict=True)
        )
        tensor = ops.resample(tensor, (d, h, w), n_threads)
        if [d, h, w] == list(size):
            return tensor[0]


def scaled(
    image: NDArray[np.float32], percentiles: tuple[float, float] = (1.0, 99.5)
) -> NDArray[np.float32]:
    """Scales an image of a head linearly: its percentiles become 0 and 1, and it is clipped there.

    Args:
        image: Any shape; all voxels of the field of view count.
        percentiles: Lower and upper, in per cent.
    Returns:
        float32, same shape.
    """
    low, high = (float(value) for value in np.percentile(image, percentiles))
    span = max(high - low, 1e-30)  # a constant image becomes 0
    values: NDArray[np.float32] = np.clip((image - low) / span, 0, 1).astype(np.float32)
    return values
