"""From logits to labels on the input's grid: thresholds, then the rules for small parts and ET."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.errors import DeviceError
from fastbts.labels import ED, ET, NCR
from fastbts.ops import Box, RegionCounts
from fastbts.placement import Placement
from fastbts.spec import EngineSpec
from fastbts.volume import Geometry, to_network_axes


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels on the input's grid.

    Attributes:
        labels: (i, j, k) uint8, values of `fastbts.labels`.
        volumes_ml: Volume per region, in millilitres.
        small_parts: What the removal of small parts did: threshold_mm3 and, if that is not 0,
            n_parts_before, n_parts_after, removed_mm3.
        small_et: What the small-ET rule did: threshold_mm3, applied, et_mm3_before, et_mm3_after.
    """

    labels: NDArray[np.uint8]
    volumes_ml: dict[str, float]
    small_parts: dict[str, float]
    small_et: dict[str, float | bool]


def label(
    logits: NDArray[np.float32],
    placement: Placement,
    geometry: Geometry,
    spec: EngineSpec,
    n_threads: int = 0,
) -> Labelled:
    """Turns logits (K, D, H, W) on the tensor's grid into labels on the input's grid.

    Connected parts of the whole tumour smaller than `spec.min_part_mm3` become background; then
    enhancing tumour of less than `spec.min_et_mm3` in total becomes necrotic core.

    Raises:
        DeviceError: Logits inside the brain box are NaN or infinite.
    """
    # In the memory order of the NIfTI file written later. Zeroed pages cost nothing until touched.
    labels = np.zeros(geometry.shape[::-1], np.uint8).T
    restored, offset = placement.restore(logits, n_threads)
    view = to_network_axes(labels, geometry)
    counts = ops.label(
        restored, offset, placement.box, uncalibrated(spec), (ED, NCR, ET), view, n_threads
    )
    voxel_mm3 = geometry.voxel_ml * 1000
    _check_finite(counts.n_nonfinite)
    counts, small_parts = _remove_small_parts(
        view, placement.box, counts, spec.min_part_mm3, voxel_mm3, n_threads
    )
    n_voxels = dict(zip(spec.regions, counts[:3], strict=True))
    et_mm3 = n_voxels["ET"] * voxel_mm3
    small = 0 < et_mm3 < spec.min_et_mm3
    if small:
        brain = view[placement.in_volume]
        brain[brain == ET] = NCR
        n_voxels["ET"] = 0
    rule = {
        "threshold_mm3": spec.min_et_mm3,
        "applied": small,
        "et_mm3_before": round(et_mm3, 3),
        "et_mm3_after": 0.0 if small else round(et_mm3, 3),
    }
    volumes_ml = {region: n * geometry.voxel_ml for region, n in n_voxels.items()}
    return Labelled(labels, volumes_ml, small_parts, rule)


def _check_finite(n_nonfinite: int) -> None:
    if n_nonfinite:
        raise DeviceError(
            f"the network gave NaN or infinite values in {n_nonfinite} voxels of the brain box; "
            "expected finite logits; use precision='fp32' or another engine file"
        )


def uncalibrated(spec: EngineSpec) -> tuple[float, float, float]:
    """The thresholds for sigmoid(logit), which the op compares, instead of sigmoid(logit / T)."""
    wt, tc, et = (spec.temperature * math.log(t / (1 - t)) for t in spec.thresholds)
    return _sigmoid(wt), _sigmoid(tc), _sigmoid(et)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(min(-logit, 700)))  # exp(710) overflows


def _remove_small_parts(
    view: NDArray[np.uint8],
    box: Box,
    counts: RegionCounts,
    min_part_mm3: float,
    voxel_mm3: float,
    n_threads: int,
) -> tuple[RegionCounts, dict[str, float]]:
    """Applies the threshold, if there is one; returns the counts left per region, and a record."""
    if not min_part_mm3:
        return counts, {"threshold_mm3": 0.0}
    # Rounded first, so that 10 mm3 are 10 voxels also if a float32 affine makes them 0.9999999 mm3.
    min_voxels = math.ceil(round(min_part_mm3 / voxel_mm3, 6))
    n_before, n_after, removed = ops.components(view, box, min_voxels, n_threads)
    n_et = removed.get(ET, 0)
    n_tc = n_et + removed.get(NCR, 0)
    n_wt = n_tc + removed.get(ED, 0)
    left = RegionCounts(counts.n_wt - n_wt, counts.n_tc - n_tc, counts.n_et - n_et, 0)
    record = {"threshold_mm3": min_part_mm3, "n_parts_before": n_before, "n_parts_after": n_after}
    return left, {**record, "removed_mm3": round(n_wt * voxel_mm3, 3)}
