"""From a Volume to the network's tensor: brain box, spacing, normalisation, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.interface import Array, Workspace
from fastbts.errors import GeometryError, InputError
from fastbts.ops import Box, Packing, Size
from fastbts.pipeline.brain import Brain, find_brain
from fastbts.placement import Placement
from fastbts.spec import MIN_STRIDES, EngineSpec
from fastbts.volume import Volume

MAX_VOXELS = 64_000_000  # 400 mm cubed at 1 mm: no head is larger, and four images fit in memory
SPACING_TOLERANCE = 0.1  # relative; training scales images by up to +-15 %


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready for the network.

    Attributes:
        tensor: (M, D, H, W) float32, normalised, or packed; D, H, W multiples of the network's
            stride. In memory that the workspace keeps.
        placement: Where it is in the volume.
        numbers: (M, 4) float64 for `statistics`.
        brain: Of the input.
    """

    tensor: Array
    placement: Placement
    numbers: Array
    brain: Brain


def normalize(
    volume: Volume,
    spec: EngineSpec,
    workspace: Workspace = HOST,
    n_threads: int = 0,
    brain: Brain | None = None,
    packing: Packing | None = None,
) -> Prepared:
    """Crops to the brain box, normalises each modality over brain voxels, pads to the stride.

    On a device it only waits for the brain box: what `statistics` raises comes later there.

    Args:
        volume: Any orientation and spacing; modalities of `spec`, in its order. One that is missing
            becomes a channel of zeros, as in the modality dropout of training.
        spec: Has stride, spacing and percentiles.
        workspace: Where it runs.
        n_threads: CPU threads; 0 for all.
        brain: What `find_brain` finds, if it is known.
        packing: How the network wants its tensor; None for voxels. Only for cases in host memory
            with all modalities.
    Raises:
        InputError: No brain voxel, a constant modality, absurd values, or NaN inside the brain.
        GeometryError: The brain would be absurdly large at the network's spacing.
    """
    brain = find_brain(volume, workspace, n_threads) if brain is None else brain
    placement = placed(brain, volume, spec)
    try:
        tensor, numbers = _normalized(brain.view, placement, spec, workspace, n_threads, packing)
    except InputError as error:
        raise InputError(f"{', '.join(volume.names)}: {error}; check the intensities") from error
    prepared = Prepared(
        _with_missing(tensor, volume.modalities, spec.modalities, workspace),
        placement,
        numbers,
        brain,
    )
    if workspace.stream is None:  # known already: a bad image is refused before the network runs
        statistics(prepared, numbers, volume)
    return prepared


def placed(brain: Brain, volume: Volume, spec: EngineSpec) -> Placement:
    """Where the network's tensor is.

    Raises:
        GeometryError: See `normalize`.
    """
    size = _network_size(brain.box.size, volume, spec)
    return Placement(brain.box.bounds, size, padded_size(size, spec.stride))


def statistics(
    prepared: Prepared, numbers: NDArray[np.float64], volume: Volume
) -> NDArray[np.float64]:
    """Lower and upper clip, mean and standard deviation of each modality of the volume, (M, 4).

    Args:
        prepared: What `normalize` returned.
        numbers: Its `numbers`, in host memory.
        volume: The case.
    Returns:
        In the input's units.
    Raises:
        InputError: See `normalize`.
    """
    for m in np.flatnonzero(~np.isfinite(numbers[:, 3])):  # on the CPU the op refuses it
        raise InputError(
            f"{', '.join(volume.names)}: normalize: volume: modality {m} has NaN or infinite brain "
            "voxels, or values too large for float64 statistics; check the intensities"
        )
    values = np.array([[background.value] for background in prepared.brain.backgrounds])
    stats = numbers + values * (1, 1, 1, 0)
    _check_contrast(volume, stats)
    return stats


def _with_missing(
    tensor: Array, present: Sequence[str], modalities: Sequence[str], workspace: Workspace
) -> Array:
    if tuple(present) == tuple(modalities):
        return tensor
    shape = (len(modalities), *tensor.shape[1:])
    whole = workspace.kept("tensor with missing", shape, np.float32)
    for channel, modality in zip(whole, modalities, strict=True):
        if modality in present:
            workspace.copy(tensor[present.index(modality)], channel)
        else:
            workspace.clear(channel)
    return whole


def _normalized(
    view: Array,
    placement: Placement,
    spec: EngineSpec,
    workspace: Workspace,
    n_threads: int,
    packing: Packing | None,
) -> tuple[Array, Array]:
    """The tensor of the modalities in the view, and their clips, means and deviations."""
    box, n_images, stream = placement.box, len(view), workspace.stream
    if placement.resampled:
        cut = workspace.sampled(view[(slice(None), *placement.in_volume)], (1, 1, 1), "cut")
        view = workspace.kept("resampled", (n_images, *placement.size), np.float32)
        ops.resample(cut, placement.size, n_threads, out=view, stream=stream)
        box = _whole(placement.size)
    layout = packing or Packing(1)
    shape = layout.shape(n_images, placement.padded)
    return ops.normalize(
        view,
        box,
        placement.padded,
        spec.percentiles,
        n_threads,
        packing=packing,
        out=workspace.kept("tensor", shape, layout.dtype),
        stats=workspace.kept("statistics", (n_images, 4), np.float64),
        scratch=workspace.scratch("normalize", (ops.normalize_scratch(n_images, box),), np.uint8),
        stream=stream,
    )


def _whole(size: Size) -> Box:
    d, h, w = size
    return (0, d), (0, h), (0, w)


def padded_size(size: Size, stride: int) -> Size:
    """What a network with this stride takes for an image of this size; see `padded_side`."""
    d, h, w = (padded_side(n, stride) for n in size)
    return d, h, w


def padded_side(n: int, stride: int) -> int:
    """The next side that a network takes, see `EngineSpec.takes`."""
    return -(-max(n, MIN_STRIDES * stride) // stride) * stride


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
