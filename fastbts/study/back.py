"""From the working grid back to the reference series: logits are resampled, then labelled there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import Box
from fastbts.pipeline.confidence import confidence, doubts, probability_sums
from fastbts.pipeline.label import label
from fastbts.placement import Placement, box_size
from fastbts.segmentation import Segmentation
from fastbts.spec import EngineSpec
from fastbts.study.grid import resampled
from fastbts.study.spatial import Floats, SpatialImage
from fastbts.volume import Geometry, Volume, network_affine


def on_reference(
    result: Segmentation, volume: Volume, spec: EngineSpec, n_threads: int = 0
) -> Segmentation:
    """The result on the grid of the reference series.

    Labels, volumes and confidence are computed anew from the resampled logits, so that the rules
    for parts hold on this grid.

    Args:
        result: On the working grid, see `working_grid`.
        volume: Images on the grid of the reference series, for the picture and the file's header.
        spec: Of the segmenter.
        n_threads: 0 for all CPUs.
    """
    if volume.geometry.difference(result.volume.geometry) is None:
        return replace(result, volume=volume)
    logits, placement = _moved(result, volume.geometry, n_threads)
    labelled = label(logits, placement, volume.geometry, spec, n_threads)
    sums = probability_sums(logits, placement, spec, n_threads=n_threads)
    confidences = confidence(sums, spec, labelled.volumes_ml)
    former = doubts(result.confidence)
    kept = [warning for warning in result.warnings if warning not in former]
    report = {
        **result.report,
        "postprocessing": {**result.report["postprocessing"], **labelled.rules},
        "volumes_ml": dict(labelled.volumes_ml),
        "confidence": dict(confidences),
        "warnings": [*kept, *doubts(confidences)],
    }
    return replace(
        result,
        labels=labelled.labels,
        volumes_ml=labelled.volumes_ml,
        report=report,
        volume=volume,
        output=logits,
        placement=placement,
    )


def _moved(
    result: Segmentation, target: Geometry, n_threads: int
) -> tuple[NDArray[np.float32], Placement]:
    """Logits in a box of the target grid, and where that is."""
    source, affine = _begins_at(result.placement.box, result), network_affine(target)
    brain = _moved_box(result.placement.brain_box, result, target)
    logits = result.placement.in_box(result.logits)
    inside = _moved_box(result.placement.box, result, target)
    affine[:3, 3] += affine[:3, :3] @ [float(start) for start, _ in inside]
    size = box_size(inside)
    moved = np.stack(
        [resampled(SpatialImage(part, source), affine, size, n_threads) for part in logits]
    )
    return moved, Placement(inside, size, size, brain)


def _moved_box(box: Box, result: Segmentation, target: Geometry) -> Box:
    """The voxels of the target grid whose centres are in a box of the result's grid."""
    to_target = np.linalg.inv(network_affine(target)) @ _begins_at(box, result)
    return _covered(to_target, box_size(box), _network_shape(target))


def _begins_at(box: Box, result: Segmentation) -> Floats:
    """From a voxel of a box of the result's grid to its position in mm."""
    affine = network_affine(result.volume.geometry)
    affine[:3, 3] += affine[:3, :3] @ [float(start) for start, _ in box]
    return affine


def _covered(to_target: Floats, shape: tuple[int, ...], limit: tuple[int, int, int]) -> Box:
    """The voxels of a target grid whose centres are in a box of such a shape; at least one each."""
    corners = np.array([[0.0, n] for n in shape]) - 0.5
    ends = to_target[:3, :3] @ corners + to_target[:3, 3:]  # the axes of both grids are the same
    first = np.ceil(ends.min(axis=1) - 1e-6)
    last = np.floor(ends.max(axis=1) + 1e-6)
    middle = np.rint(ends.mean(axis=1))
    narrow = first > last
    first, last = np.where(narrow, middle, first), np.where(narrow, middle, last)
    first, last = (np.clip(end, 0, np.array(limit) - 1).astype(int) for end in (first, last))
    d, h, w = ((int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    return d, h, w


def _network_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(D, H, W) of a grid in network axes."""
    sizes = {axis: n for (axis, _), n in zip(geometry.ras_axes, geometry.shape, strict=True)}
    return sizes[2], sizes[1], sizes[0]
