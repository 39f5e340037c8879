"""Which slices of a DICOM series belong to one image, and the grid of that image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError
from fastbts.study.dicom_files import stored_pixels
from fastbts.study.dicom_frames import Frame
from fastbts.volume import Geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_STEP_ERROR = 0.05  # of a step between slices; positions are often rounded to 0.01 mm
MAX_SLICES_APART = 0.01  # mm between two slices of one position
MAX_VOXELS = 1 << 30
MAX_REPEATS = 4  # images of one kind in a series


class RefusedError(Exception):
    """Why a series is no image on one grid."""


def images_of(frames: list[Frame]) -> list[list[Frame]]:
    """The images of a series, each with its slices sorted; files that are there twice are left."""
    frames = list({(frame.uid, *frame.position.tolist()): frame for frame in frames}.values())
    n_frames = len({frame.facts.frame_of_reference_uid for frame in frames})
    if n_frames > 1:
        raise RefusedError(
            f"slices in {n_frames} frames of reference, whose positions cannot be compared"
        )
    return [part for alike in _kinds(frames) for part in _acquisitions(alike)]


def _kinds(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Slices that may be of one image together."""
    kinds: list[list[Frame]] = []
    for frame in frames:
        alike = next((kind for kind in kinds if frame.is_like(kind[0])), None)
        if alike is None:
            kinds.append([frame])
        else:
            alike.append(frame)
    return kinds


def _acquisitions(frames: list[Frame]) -> list[list[Frame]]:
    """One image, or one per acquisition where slices have the same position."""
    attempts: tuple[Callable[[Frame], Any], ...] = (
        lambda frame: None,
        lambda frame: frame.acquisition[0],
        lambda frame: frame.acquisition[1],
        lambda frame: frame.acquisition,
    )
    for key in attempts:
        groups: dict[Any, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[key(frame)].append(frame)
        parts = [_sorted(groups[name]) for name in sorted(groups, key=str)]
        if all(_distinct(part) for part in parts):
            return _few(parts)
    return [_sorted(_without_copies(frames))]  # refused later if there is more than copies


def _without_copies(frames: list[Frame]) -> list[Frame]:
    """Slices that were sent again under another UID are left out: same place, same pixels."""
    heights = np.round(_heights(frames) / MAX_SLICES_APART).tolist()
    enhanced = any(frame.index is not None for frame in frames)
    if enhanced or len(frames) > MAX_REPEATS * len(set(heights)):
        return frames
    digests = [hashlib.sha256(stored_pixels(frame.file)).digest() for frame in frames]
    different = dict(zip(zip(heights, digests, strict=True), frames, strict=True))
    return list(different.values())


def _few(parts: list[list[Frame]]) -> list[list[Frame]]:
    if len(parts) > MAX_REPEATS:
        raise RefusedError(f"{len(parts)} images one after the other: perfusion or function")
    return parts


def _heights(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Positions along the normal of the slices, in mm."""
    return np.array([frame.position for frame in frames]) @ frames[0].normal


def _sorted(frames: list[Frame]) -> list[Frame]:
    return [frames[n] for n in np.argsort(_heights(frames), kind="stable")]


def _distinct(frames: Sequence[Frame]) -> bool:
    return bool((np.diff(_heights(frames)) > MAX_SLICES_APART).all())


def grid_of(frames: list[Frame]) -> Geometry:
    """The grid of sorted slices; i along a row, j along a column, k from slice to slice."""
    n, first = len(frames), frames[0]
    if n < 2:
        raise RefusedError("1 slice: a localizer or a single picture")
    if not _distinct(frames):
        raise RefusedError("several images at the same positions, which nothing tells apart")
    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / (n - 1)
    _check_steps(positions, step)
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    rows, columns = first.shape
    if n * rows * columns > MAX_VOXELS:
        raise RefusedError(f"{columns} x {rows} x {n} voxels, at most {MAX_VOXELS} are read")
    try:
        return Geometry((columns, rows, n), LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise RefusedError(str(error)) from None


def _check_steps(positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    regular = positions[0] + np.arange(len(positions))[:, None] * step
    error = np.linalg.norm(positions - regular, axis=1).max()
    if error > MAX_STEP_ERROR * np.linalg.norm(step):
        raise RefusedError(
            f"steps between its {len(positions)} slices of {steps.min():.2f} to {steps.max():.2f} "
            "mm, expected equal ones: slices are missing; send the series again"
        )
