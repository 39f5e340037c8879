"""Where the brain of a case is, and its images with a background of exactly 0.

A clean case has a background of exactly 0, and brains of one size in all images: it is used as it
is. In any other case the background of each image is estimated, the images vote on what is brain,
and copies of them are made that are 0 outside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.host_cpus import n_cpus
from fastbts.device.interface import Array, Workspace
from fastbts.errors import InputError
from fastbts.pipeline.background import (
    DARK,
    Background,
    Level,
    counts_outside,
    is_above,
    is_integer,
    level_of,
    n_outside,
    tolerance_of,
    without,
)
from fastbts.pipeline.masks import Mask, bounds_of, dilated, filled, largest_part
from fastbts.volume import MAX_BRAIN_ML, MAX_BRAIN_SHARE, Volume, to_network_axes

STRIP = "`fastbts study` (fastbts.read_study) removes it"
MAX_EXCESS = 0.25  # voxels of an image's mask outside the brain of the others, relative to it
GRID = 40  # voxels along each axis of the sample that finds out whether a case is clean
# Voxels that are faint in all images, relative to bright ones, are at most 1.7 % of a brain in
# the 85 BraTS cases. Their brain boxes exceed those of the sample by at most its step, and at most
# 1e-5 of their voxels are apart from the others.
FAINT, MAX_FAINT = 0.03, 0.04
SLACK = 2  # voxels, beyond that step
MAX_APART = 1e-3
# Of a brain; where the background is NaN, so are voxels inside that were exactly 0: up to 1.1e-3.
MAX_HOLES = 2e-3
RIM = 3  # voxels around the brain where the images may differ


@dataclass(frozen=True, eq=False)
class Brain:
    """The images of a case with the brain in a background of 0.

    Attributes:
        view: (M, D, H, W) in the workspace, `Background.value` subtracted; if the case is clean,
            the volume's own data or a copy there.
        box: Of the view.
        backgrounds: Of each image.
        warnings: What was done, unless the case is clean.
        corrected: On a device: tells whether the case is not clean after all, while the device
            already computes; then gives its brain, else None.
    """

    view: Array
    box: ops.BrainBox
    backgrounds: Sequence[Background]
    warnings: tuple[str, ...] = ()
    corrected: Callable[[], Brain | None] = lambda: None


def find_brain(volume: Volume, workspace: Workspace = HOST, n_threads: int = 0) -> Brain:
    """Finds the brain of a case, and makes its background 0 where it is not.

    On a device it waits once, as the box decides the shape of all that follows, and takes a case
    for clean whose counts of voxels are: `corrected` looks closer.

    Raises:
        InputError: An image is zero, or NaN or infinite inside the brain; or there is no brain.
    """
    view = to_network_axes(workspace.put(volume.data, "images"), volume.geometry)
    numbers = workspace.kept("brain box", (7 + 2 * len(view),), np.int64)
    ops.queue_brain_box(view, numbers, n_threads, stream=workspace.stream)
    steps = [max(1, n // GRID) for n in view.shape[1:]]
    numbers, sample = workspace.get(numbers, workspace.sampled(view, steps, "brain sample"))
    box = ops.BrainBox.of(numbers.tolist())
    for name, n_nonzero in zip(volume.names, box.n_nonzero, strict=True):
        if not n_nonzero:
            raise InputError(
                f"{name}: all voxels are zero; expected an MR image; check that the right file was "
                "given"
            )

    def corrected() -> Brain | None:
        if _sample_is_clean(sample, steps, box, n_threads):
            return None
        return _cleaned_in(workspace, volume, view, n_threads)

    if (
        any(box.n_nonfinite)
        or _is_too_large(box.n_brain, view[0].size, volume.geometry.voxel_ml)
        or box.n_brain > (1 + MAX_EXCESS) * float(np.median(box.n_nonzero))
    ):
        return _cleaned_in(workspace, volume, view, n_threads)
    clean = Brain(view, box, [Background()] * len(view))
    if workspace.stream is None:
        return corrected() or clean
    return replace(clean, corrected=corrected)


def _cleaned_in(workspace: Workspace, volume: Volume, view: Array, n_threads: int) -> Brain:
    """The brain in images without background; they are made on the host, as this is rare."""
    if isinstance(volume.data, np.ndarray):
        view = to_network_axes(volume.data, volume.geometry)
    else:
        (view,) = workspace.get(view)
    brain = _cleaned(volume, view, n_threads)
    return replace(brain, view=workspace.put(brain.view, "images without background"))


def _is_too_large(n_brain: int, n_voxels: int, voxel_ml: float) -> bool:
    return n_brain > MAX_BRAIN_SHARE * n_voxels or n_brain * voxel_ml > MAX_BRAIN_ML


@np.errstate(all="ignore")  # absurd intensities become infinite; the op `normalize` refuses them
def _sample_is_clean(
    sample: NDArray[np.float32], steps: Sequence[int], box: ops.BrainBox, n_threads: int
) -> bool:
    """Whether few voxels are faint in all images or apart from the brain, and none is far off."""
    sample = np.abs(sample)
    sample[np.isnan(sample)] = np.inf  # what a device makes of voxels beyond float32
    brain: Mask = np.asarray((sample > 0).any(axis=0))
    bright = [np.percentile(image[image > 0], 90) if image.any() else 0.0 for image in sample]
    limits = FAINT * np.array(bright, np.float32)
    faint = brain & (sample <= limits[:, None, None, None]).all(axis=0)
    if np.count_nonzero(faint) > MAX_FAINT * np.count_nonzero(brain):
        return False
    part = ops.brain_box(largest_part(brain, n_threads)[None].view(np.uint8), n_threads)
    if np.count_nonzero(brain) - part.n_brain > MAX_APART * part.n_brain:
        return False
    return all(
        step * begin - first <= step + SLACK and last - step * end <= SLACK
        for step, (begin, end), (first, last) in zip(steps, part.bounds, box.bounds, strict=True)
    )


def _cleaned(volume: Volume, view: NDArray[Any], n_threads: int) -> Brain:
    """Works on axes in the order of memory, as whatever else takes several times longer."""
    order = [0, *sorted((1, 2, 3), key=lambda axis: -abs(view.strides[axis]))]
    with ThreadPoolExecutor(n_threads or n_cpus(), "fastbts-brain") as pool:
        brain = _cleaned_by(pool, volume, view.transpose(order), n_threads)
    d, h, w = (brain.box.bounds[order.index(axis) - 1] for axis in (1, 2, 3))
    box = replace(brain.box, bounds=(d, h, w))
    return replace(brain, view=brain.view.transpose(np.argsort(order)), box=box)


def _cleaned_by(pool: Executor, volume: Volume, view: NDArray[Any], n_threads: int) -> Brain:
    """Does the same; the images by the threads of the pool."""
    levels = list(pool.map(level_of, view))
    tolerances = _tolerances(pool, view, levels, n_threads)
    masks = list(pool.map(is_above, view, levels, tolerances))
    brain, voted = _vote(masks, volume.geometry.voxel_ml, n_threads)
    _check_finite(volume, view, brain, n_threads)
    box = bounds_of(brain, n_threads)
    clean = _without_background(pool, view, brain, box, [level.value for level in levels])
    found = ops.brain_box(clean, n_threads)
    if not found.n_brain:
        raise InputError(
            f"{', '.join(volume.names)}: no brain was found; expected skull-stripped MR images; "
            "check the files, or give raw images to `fastbts study` (fastbts.read_study)"
        )
    outside = pool.map(counts_outside, view, masks, repeat(brain))
    backgrounds = [
        Background(level.value, tolerance, *counts, voted=use)
        for level, tolerance, counts, use in zip(levels, tolerances, outside, voted, strict=True)
    ]
    return Brain(clean, found, backgrounds, tuple(_warnings(volume, masks, brain, backgrounds)))


def _tolerances(
    pool: Executor, view: NDArray[Any], levels: Sequence[Level], n_threads: int
) -> list[float]:
    """How far nearly all voxels outside the head deviate from the level of each image."""
    limits = (DARK * level.scale if level.scale else np.inf for level in levels)
    head = np.zeros_like(view[0], bool)
    for mask in pool.map(is_above, view, levels, limits):
        head |= mask
    head = dilated(largest_part(head, n_threads), RIM, n_threads)
    near = dilated(head, 2, n_threads) & ~head
    return list(pool.map(tolerance_of, view, levels, repeat(~head), repeat(near)))


def _vote(masks: Sequence[Mask], voxel_ml: float, n_threads: int) -> tuple[Mask, list[bool]]:
    """The brain by majority, and which images took part.

    A voxel is brain if any of these images says so and the majority's brain is near. An image
    whose mask is too large for a brain takes part only if all are; one whose mask has much that is
    outside the majority's brain does not take part.
    """
    sizes = [int(np.count_nonzero(mask)) for mask in masks]
    voted = [not _is_too_large(n, masks[0].size, voxel_ml) for n in sizes]
    voted = voted if any(voted) else [True] * len(masks)
    core = _majority(masks, voted, n_threads)
    limit = MAX_EXCESS * int(np.count_nonzero(core))
    agree = [use and n_outside(mask, core) <= limit for mask, use in zip(masks, voted, strict=True)]
    voted = agree if any(agree) else voted
    union = np.zeros_like(core)
    for mask in compress(masks, voted):
        union |= mask
    union &= dilated(core, RIM, n_threads)
    return largest_part(union, n_threads), voted


def _majority(masks: Sequence[Mask], voted: Sequence[bool], n_threads: int) -> Mask:
    """The largest connected part of what at least half of the voting images call brain."""
    votes = np.zeros_like(masks[0], np.uint8)
    for mask in compress(masks, voted):
        votes += mask
    return largest_part(votes >= (sum(voted) + 1) // 2, n_threads)


def _check_finite(volume: Volume, view: NDArray[Any], brain: Mask, n_threads: int) -> None:
    """Refuses NaN inside the brain.

    NaN near its surface that goes on outside the brain, or outside the image, is background; so
    are a few voxels inside where NaN is what the image has outside.
    """
    if is_integer(view):
        return
    nonfinite = [~np.isfinite(image) for image in view]
    if not any(mask.any() for mask in nonfinite):
        return
    inside = filled(brain, n_threads)
    edge = np.pad(np.zeros([n - 2 for n in inside.shape], bool), 1, constant_values=True)
    for name, mask in zip(volume.names, nonfinite, strict=True):
        # Where NaN is the background, it is that in holes of the brain too.
        is_background = 2 * np.count_nonzero(mask & ~inside) > np.count_nonzero(~inside)
        around = mask & (edge | ~(brain if is_background else inside))
        for _ in range(RIM):
            around = dilated(around, 1, n_threads) & mask
        n_bad = np.count_nonzero(mask & ~around)
        if n_bad > (MAX_HOLES * np.count_nonzero(inside) if is_background else 0):
            raise InputError(
                f"{name}: {n_bad} voxels inside the brain are NaN or infinite; expected finite "
                "intensities; repair or re-export it"
            )


def _without_background(
    pool: Executor,
    view: NDArray[Any],
    brain: Mask,
    box: tuple[slice, ...],
    values: Sequence[float],
) -> NDArray[Any]:
    """A copy that is 0 outside the brain, which is in a box, less the background inside."""
    real = np.result_type(view.dtype, np.float32) if any(values) else view.dtype
    clean = np.zeros_like(view, real)  # in the order of the view's memory, as all here
    list(pool.map(without, view, values, repeat(brain), clean, repeat(box)))
    return clean


def _warnings(
    volume: Volume, masks: Sequence[Mask], brain: Mask, backgrounds: Sequence[Background]
) -> Iterator[str]:
    for modality, mask, background in zip(volume.modalities, masks, backgrounds, strict=True):
        yield from (f"{modality}: {text}" for text in _what_was_done(background))
        text = _what_is_too_large(mask, brain, background.voted, volume.geometry.voxel_ml)
        if text:
            yield f"{modality}: {text}"


def _what_was_done(background: Background) -> Iterator[str]:
    if background.value or background.tolerance:
        yield (
            f"the background is {background.value:.4g} +- {background.tolerance:.2g}, expected "
            "exactly 0; it was taken as 0"
        )
    if background.n_nonfinite:
        yield (
            f"{background.n_nonfinite} voxels of the background are NaN or infinite; they were "
            "taken as 0"
        )
    if background.n_stray and background.voted and not background.tolerance:
        yield (
            f"{background.n_stray} voxels that are not part of the brain are not background; they "
            "were ignored"
        )


def _what_is_too_large(mask: Mask, brain: Mask, voted: bool, voxel_ml: float) -> str | None:
    n_voxels, n_brain = int(np.count_nonzero(mask)), int(np.count_nonzero(brain))
    size = f"{n_voxels / mask.size:.0%} of the image ({n_voxels * voxel_ml:.0f} ml)"
    if not voted:
        return (
            f"{size} is not background, which does not match the brain of the other images "
            f"({n_brain * voxel_ml:.0f} ml): it was cut to that brain; if it has a "
            f"skull, {STRIP}"
        )
    if _is_too_large(n_voxels, mask.size, voxel_ml):
        return (
            f"{size} is not background, too much for a brain: the skull or the background was "
            f"probably not removed; {STRIP}"
        )
    return None
