"""From a volume to the network's tensor: brain box, spacing, normalisation, padding; and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.engine import EngineSpec
from fastbts.errors import InputError
from fastbts.ops import Box, Size
from fastbts.volume import Volume, to_network_axes

SPACING_TOLERANCE = 0.1  # relative; within it the network sees what its training's scaling showed it (+-15 %)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready for the network.

    Attributes:
        tensor: (M, D, H, W) float32, normalised; D, H, W multiples of the network's stride.
        box: The brain box in the volume's (Z, Y, X) axes, half-open.
        size: The brain box's size at the network's spacing.
        stats: Per modality: lower and upper clip, mean, standard deviation, in the input's units, (M, 4).
        n_brain: Brain voxels of the input.
    """

    tensor: NDArray[np.float32]
    box: Box
    size: Size
    stats: NDArray[np.float64]
    n_brain: int

    @property
    def offset(self) -> Size:
        """Where the brain box begins inside the tensor: the padding is symmetric."""
        d, h, w = ((n - s) // 2 for n, s in zip(self.tensor.shape[1:], self.size, strict=True))
        return d, h, w

    @property
    def resampled(self) -> bool:
        """Whether the input's spacing differs from the network's by more than the tolerance."""
        return self.size != _size(self.box)

    def restore(self, logits: NDArray[np.float32], n_threads: int = 0) -> tuple[NDArray[np.float32], Size]:
        """Maps logits (K, D, H, W) back to the input's spacing; returns them with the box's offset in them."""
        if not self.resampled:
            return logits, self.offset
        inner = tuple(slice(o, o + n) for o, n in zip(self.offset, self.size, strict=True))
        return ops.resample(logits[(slice(None), *inner)], _size(self.box), n_threads), (0, 0, 0)


def preprocess(volume: Volume, spec: EngineSpec, n_threads: int = 0) -> Prepared:
    """Crops to the brain box, normalises each modality over its brain voxels, pads to the network's stride.

    Args:
        volume: Any orientation and spacing; modalities in the order of `spec`.
        spec: Tells stride, spacing and percentiles.
        n_threads: CPU threads; 0 for all.
    Raises:
        InputError: No brain voxel, a constant modality, or non-finite values.
    """
    view = to_network_axes(volume.data, volume.geometry)
    brain = ops.brain_box(view, n_threads)
    _check_content(volume, brain)
    box, size = brain.bounds, _network_size(brain.size, volume, spec)
    padded = _padded(size, spec.stride)
    if size == _size(box):
        tensor, stats = ops.normalize(view, box, padded, spec.percentiles, n_threads)
    else:
        cut = np.ascontiguousarray(view[(slice(None), *(slice(*side) for side in box))], np.float32)
        tensor, stats = ops.normalize(ops.resample(cut, size, n_threads), _whole(size), padded, spec.percentiles, n_threads)
    _check_contrast(volume, stats)
    return Prepared(tensor, box, size, stats, brain.n_brain)


def _size(box: Box) -> Size:
    d, h, w = (stop - start for start, stop in box)
    return d, h, w


def _whole(size: Size) -> Box:
    d, h, w = size
    return (0, d), (0, h), (0, w)


def _padded(size: Size, stride: int) -> Size:
    """The next multiples of the stride, at least two, so that the coarsest level has something to normalise over."""
    d, h, w = (-(-max(n, 2 * stride) // stride) * stride for n in size)
    return d, h, w


def _network_size(brain: Size, volume: Volume, spec: EngineSpec) -> Size:
    """The box's size at the network's spacing; unchanged along axes whose spacing is near enough."""
    axes = {axis: step for (axis, _), step in zip(volume.geometry.ras_axes, volume.geometry.spacing_mm, strict=True)}
    sizes = []
    for n, spacing in zip(brain, (axes[2], axes[1], axes[0]), strict=True):
        factor = spacing / spec.spacing_mm
        sizes.append(n if abs(factor - 1) <= SPACING_TOLERANCE else max(1, round(n * factor)))
    d, h, w = sizes
    return d, h, w


def _check_content(volume: Volume, brain: ops.BrainBox) -> None:
    for name, n_bad, n_set in zip(volume.names, brain.n_nonfinite, brain.n_nonzero, strict=True):
        if n_bad:
            raise InputError(f"{name}: {n_bad} voxels are NaN or infinite; expected finite intensities; repair or re-export it")
        if not n_set:
            raise InputError(f"{name}: all voxels are zero; expected an MR image; check that the right file was given")


def _check_contrast(volume: Volume, stats: NDArray[np.float64]) -> None:
    for name, (low, high, mean, std) in zip(volume.names, stats, strict=True):
        if not std > 0:
            raise InputError(f"{name}: all brain voxels have about the value {mean:g} (clipped to {low:g}-{high:g}); expected an MR image "
                             "with contrast; check that the right file was given")  # fmt: skip
