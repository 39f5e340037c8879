"""The ops from the network's logits to labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.ops.arrays import Array, is_on_device, output_array, stream_handle
from fastbts.ops.image import Box, Size
from fastbts.ops.packing import PackedLogits, layout

__all__ = [
    "Parts",
    "RegionCounts",
    "StrayCore",
    "components",
    "expected_dice",
    "label",
    "stray_core",
]


class RegionCounts(NamedTuple):
    """Voxels of each region, nested: ET is part of TC, TC of WT.

    `n_nonfinite` is the number of voxels with a NaN or infinite logit.
    """

    n_wt: int
    n_tc: int
    n_et: int
    n_nonfinite: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> RegionCounts:
        """From the numbers that the op writes."""
        return cls(*counts)


class Parts(NamedTuple):
    """Connected parts before and after `components`, and removed voxels of each label."""

    n_before: int
    n_after: int
    n_removed: dict[int, int]

    @classmethod
    def of(cls, counts: Sequence[int]) -> Parts:
        """From the numbers that the op writes."""
        n_before, n_after, *n_removed = counts
        return cls(n_before, n_after, {label: n for label, n in enumerate(n_removed) if n})


class StrayCore(NamedTuple):
    """Inner voxels of enclosed parts and of stray ones, and all voxels that became oedema."""

    n_enclosed: int
    n_stray: int
    n_changed: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> StrayCore:
        """From the numbers that the op writes."""
        return cls(*counts)


def label(
    logits: Array | PackedLogits,
    offset: Size,
    box: Box,
    thresholds: tuple[float, float, float],
    values: tuple[int, int, int],
    labels: Array,
    n_threads: int = 0,
    *,
    counts: Array | None = None,
    stream: Any = None,
) -> RegionCounts | None:
    """Turns region logits into labels, inside a box.

    A voxel is ET where the probability of ET reaches its threshold, else NCR where that of TC does,
    else ED where that of WT does, else 0. As in nnU-Net, a region counts even where the one around
    it does not.

    Args:
        logits: (3, D', H', W') float32 for WT, TC, ET, or packed; NaN belongs to no region.
        offset: Where the box begins in the logits.
        box: Part of the labels to write.
        thresholds: Probabilities between 0 and 1 for WT, TC, ET.
        values: Labels written for ED, NCR, ET (oedema, necrotic core, enhancing tumour).
        labels: (D, H, W) uint8, any strides, written inside the box only.
        n_threads: 0 for all CPUs.
        counts: (4,) int64, written: voxels of WT, TC, ET, and with non-finite logits; needed on a
            device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The counts; None on a device, where `counts` has them once the stream is waited for.
    """
    array, patch = layout(logits)
    counts = output_array("label: counts", counts, array, (4,), np.int64)
    _C.label(
        array,
        patch,
        offset,
        box,
        thresholds,
        values,
        labels,
        counts,
        n_threads,
        stream_handle(stream),
    )
    return None if is_on_device(counts) else RegionCounts.of(np.asarray(counts).tolist())


def expected_dice(
    logits: Array | PackedLogits,
    offset: Size,
    size: Size,
    temperatures: Sequence[float],
    thresholds: Sequence[float],
    step: int = 1,
    n_threads: int = 0,
    *,
    sums: Array | None = None,
    stream: Any = None,
) -> NDArray[np.int64]:
    """Sums of which the expected Dice of each region follows, over a box of the logits.

    For probabilities p = sigmoid(logit / temperature) and the mask m of a region it is
    2 sum(p m) / (sum(p) + sum(m)).

    Args:
        logits: (K, D, H, W) float32, or packed, at most 8 regions; NaN counts as p = 0.
        offset: Where the box begins in the logits.
        size: Its voxels.
        temperatures: Above 0, one per region.
        thresholds: Of sigmoid(logit), one per region, as for `label`.
        step: Takes every `step`-th voxel along each axis.
        n_threads: 0 for all CPUs.
        sums: (K, 4) int64, written; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        `sums`: sum(m), sum(p), sum(p m) and max(p) per region; p in units of 2^-30.
    """
    array, patch = layout(logits)
    n_regions = np.shape(array)[0] // patch**3
    sums = output_array("expected_dice: sums", sums, array, (n_regions, 4), np.int64)
    _C.expected_dice(
        array,
        patch,
        offset,
        size,
        step,
        list(temperatures),
        list(thresholds),
        sums,
        n_threads,
        stream_handle(stream),
    )
    return sums


def components(
    labels: Array,
    box: Box,
    min_voxels: int,
    n_threads: int = 0,
    *,
    counts: Array | None = None,
    scratch: Array | None = None,
    stream: Any = None,
) -> Parts | None:
    """Sets parts of less than `min_voxels` to 0.

    A part is a set of non-zero voxels, whatever their labels, that touch by faces, edges or corners
    inside the box.

    Args:
        labels: (D, H, W) uint8, any strides, changed inside the box only.
        box: Part of the labels to process.
        min_voxels: Smallest size of a part that is kept.
        n_threads: 0 for all CPUs.
        counts: (258,) int64, written: parts before, parts after, removed voxels of each label;
            needed on a device.
        scratch: (2, n) int32, n at least the voxels of the box; needed on a device, unused on the
            CPU.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The counts; None on a device, where `counts` has them once the stream is waited for.
    """
    counts = output_array("components: counts", counts, labels, (258,), np.int64)
    _C.components(labels, box, min_voxels, counts, scratch, n_threads, stream_handle(stream))
    return None if is_on_device(counts) else Parts.of(np.asarray(counts).tolist())


def stray_core(
    labels: Array,
    box: Box,
    values: tuple[int, int, int],
    min_voxels: int,
    n_threads: int = 0,
    *,
    counts: Array | None = None,
    scratch: Array | None = None,
    stream: Any = None,
) -> StrayCore | None:
    """Makes stray necrotic core oedema, where other core shows what core of this tumour looks like.

    Inner voxels are core whose six neighbours are core, inside the box. A part is a set of inner
    voxels that touch by faces, at least `min_voxels` of them: a thin bridge does not join two. Its
    contact is the share of its faces, all of which lead to core around it, behind which that core
    shares a face with enhancing tumour: less than a quarter makes it stray, at least seven tenths
    enclosed. If the enclosed parts have at least a twentieth of the voxels of the stray ones, these
    change, with the core that three steps by faces, through core, lead to, unless other inner
    voxels are nearer. Without a core in a ring nothing says that core away from enhancing tumour is
    wrong, as in low-grade gliomas.

    Args:
        labels: (D, H, W) uint8, any strides, changed inside the box only.
        box: Part of the labels to process.
        values: Labels of ED, NCR, ET (oedema, necrotic core, enhancing tumour).
        min_voxels: Smallest part that counts.
        n_threads: 0 for all CPUs.
        counts: (3,) int64, written: the numbers returned; needed on a device.
        scratch: (4, n) int32, n at least the voxels of the box; needed on a device, unused on the
            CPU.
        stream: CUDA stream, for arrays on a device.

    Returns:
        The counts; None on a device, where `counts` has them once the stream is waited for.
    """
    counts = output_array("stray_core: counts", counts, labels, (3,), np.int64)
    handle = stream_handle(stream)
    _C.stray_core(labels, box, values, min_voxels, counts, scratch, n_threads, handle)
    return None if is_on_device(counts) else StrayCore.of(np.asarray(counts).tolist())
