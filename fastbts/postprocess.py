"""From logits to labels on the input's grid: threshold, regions to labels, paste back, small-ET rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.engine import EngineSpec
from fastbts.labels import ED, ET, NCR
from fastbts.preprocess import Prepared
from fastbts.volume import Geometry, to_network_axes


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels on the input's grid.

    Attributes:
        labels: (i, j, k) uint8, values of `fastbts.labels`.
        n_voxels: Voxels per region after all rules.
        small_et: What the small-ET rule did: threshold_mm3, et_mm3_before, applied.
    """

    labels: NDArray[np.uint8]
    n_voxels: dict[str, int]
    small_et: dict[str, float | bool]


def postprocess(
    logits: NDArray[np.float32], prepared: Prepared, geometry: Geometry, spec: EngineSpec, n_threads: int = 0
) -> Labelled:
    """Turns logits (K, D, H, W) on the tensor's grid into labels on the input's grid."""
    # Fortran order, like the NIfTI file that will hold them; zeros from the operating system cost nothing until touched.
    labels = np.zeros(geometry.shape[::-1], np.uint8).T
    restored, offset = prepared.restore(logits, n_threads)
    view = to_network_axes(labels, geometry)
    counts = ops.label(restored, offset, prepared.box, spec.thresholds, (ED, NCR, ET), view, n_threads)
    n_voxels = dict(zip(spec.regions, counts, strict=True))
    et_mm3 = n_voxels["ET"] * geometry.voxel_ml * 1000
    small = 0 < et_mm3 < spec.min_et_mm3
    if small:
        brain = view[tuple(slice(*side) for side in prepared.box)]
        brain[brain == ET] = NCR
        n_voxels["ET"] = 0
    rule = {"threshold_mm3": spec.min_et_mm3, "et_mm3_before": round(et_mm3, 3), "applied": small}
    return Labelled(labels, n_voxels, rule)
