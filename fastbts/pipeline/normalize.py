"""From a Volume to the network's tensor: brain box, spacing, normalisation, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.errors import GeometryError, InputError
from fastbts.ops import Box, Size
from fastbts.pipeline.brain import Background, find_brain
from fastbts.placement import Placement
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

MAX_VOXELS = 64_000_000  # 400 mm cubed at 1 mm: no head is larger, and four images fit in memory
SPACING_TOLERANCE = 0.1  # relative; training scales images by up to +-15 %


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready for the network.

    Attributes:
        tensor: (M, D, H, W) float32, normalised; D, H, W multiples of the network's stride.
        placement: Where it is in the volume.
        stats: (M, 4), per modality of the volume: lower and upper clip, mean, standard deviation,
            in the input's units.
        n_brain: Brain voxels of the input.
        backgrounds: Per modality of the volume, what was taken as 0.
        warnings: What is unusual about the intensities but not wrong.
    """

    tensor: NDArray[np.float32]
    placement: Placement
    stats: NDArray[np.float64]
    n_brain: int
    backgrounds: Sequence[Background]
    warnings: tuple[str, ...]


def normalize(volume: Volume, spec: EngineSpec, n_threads: int = 0) -> Prepared:
    """Crops to the brain box, normalises each modality over brain voxels, pads to the stride.

    Args:
        volume: Any orientation and spacing; modalities of `spec`, in its order. One that is missing
            becomes a channel of zeros, as in the modality dropout of training.
        spec: Has stride, spacing and percentiles.
        n_threads: CPU threads; 0 for all.
    Raises:
        InputError: No brain voxel, a constant modality, absurd values, or NaN inside the brain.
        GeometryError: The brain would be absurdly large at the network's spacing.
    """
    brain = find_brain(volume, n_threads)
    size = _network_size(brain.box.size, volume, spec)
    placement = Placement(brain.box.bounds, size, _padded(size, spec.stride))
    try:
        tensor, stats = _normalized(brain.view, placement, spec.percentiles, n_threads)
    except InputError as error:
        raise InputError(f"{', '.join(volume.names)}: {error}; check the intensities") from error
    stats[:, :3] += np.array([[background.value] for background in brain.backgrounds])
    _check_contrast(volume, stats)
    return Prepared(
        _with_missing(tensor, volume.modalities, spec.modalities),
        placement,
        stats,
        brain.box.n_brain,
        brain.backgrounds,
        brain.warnings,
    )


def _with_missing(
    tensor: NDArray[np.float32], present: Sequence[str], modalities: Sequence[str]
) -> NDArray[np.float32]:
    if tuple(present) == tuple(modalities):
        return tensor
    whole = np.zeros((len(modalities), *tensor.shape[1:]), np.float32)
    whole[[modalities.index(m) for m in present]] = tensor
    return whole


def _normalized(
    view: NDArray[Any], placement: Placement, percentiles: tuple[float, float], n_threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    if not placement.resampled:
        return ops.normalize(view, placement.box, placement.padded, percentiles, n_threads)
    cut = np.ascontiguousarray(view[(slice(None), *placement.in_volume)], np.float32)
    resampled = ops.resample(cut, placement.size, n_threads)
    return ops.normalize(
        resampled, _whole(placement.size), placement.padded, percentiles, n_threads
    )


def _whole(size: Size) -> Box:
    d, h, w = size
    return (0, d), (0, h), (0, w)


def _padded(size: Size, stride: int) -> Size:
    """The next multiples of the stride; at least two, so that the coarsest level can normalise."""
    d, h, w = (-(-max(n, 2 * stride) // stride) * stride for n in size)
    return d, h, w


def _network_size(brain: Size, volume: Volume, spec: EngineSpec) -> Size:
    """The box's size at the network's spacing; the same along axes whose spacing is close to it."""
    geometry, sizes = volume.geometry, []
    pairs = zip(geometry.ras_axes, geometry.spacing_mm, strict=True)
    spacing_mm = {axis: step for (axis, _), step in pairs}
    for n, spacing in zip(brain, (spacing_mm[2], spacing_mm[1], spacing_mm[0]), strict=True):
        factor = spacing / spec.spacing_mm
        sizes.append(n if abs(factor - 1) <= SPACING_TOLERANCE else max(1, round(n * factor)))
    d, h, w = sizes
    if d * h * w > MAX_VOXELS:
        raise GeometryError(
            f"{volume.names[0]}: the brain box would have {d} x {h} x {w} voxels at "
            f"{spec.spacing_mm:g} mm, spacing {geometry.spacing_mm} mm; expected at most "
            f"{MAX_VOXELS} voxels; check the header's units"
        )
    return d, h, w


def _check_contrast(volume: Volume, stats: NDArray[np.float64]) -> None:
    for name, (low, high, mean, std) in zip(volume.names, stats, strict=True):
        if not std > 0:
            raise InputError(
                f"{name}: all brain voxels have about the value {mean:g} (clipped to "
                f"{low:g}-{high:g}); expected an MR image with contrast; check that the right file "
                "was given"
            )
