"""How far a result can be trusted: the Dice that the network's own probabilities let one expect.

`python -m training confidence` checks it against the true Dice of labelled cases, and proposes the
limits below which a result is called doubtful.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.interface import Array, Workspace
from fastbts.ops import PackedLogits
from fastbts.pipeline.label import uncalibrated
from fastbts.placement import Placement
from fastbts.spec import EngineSpec

UNITS = 2**30  # of the sums of probabilities
STEP = 2  # every second voxel along each axis is enough
DOUBTFUL = {"WT": 0.75, "TC": 0.3, "ET": 0.75}
"""A lower confidence is doubtful; other regions have no limit. From
benchmarks/results/confidence.json: at most one in 20 training cases with a Dice of 0.8 or more is
below."""


def probability_sums(
    logits: Array | PackedLogits,
    placement: Placement,
    spec: EngineSpec,
    workspace: Workspace = HOST,
    n_threads: int = 0,
) -> Array:
    """The numbers of `confidence`, (K, 4) int64, from the probabilities in the brain box.

    Args:
        logits: (K, D, H, W) on the tensor's grid, or packed.
        placement: Where the brain box is in it.
        spec: Has regions, thresholds and temperatures.
        workspace: Where the logits are.
        n_threads: CPU threads; 0 for all.
    """
    return ops.expected_dice(
        logits,
        placement.offset,
        placement.size,
        spec.temperatures,
        uncalibrated(spec),
        STEP,
        n_threads,
        sums=workspace.kept("probability sums", (logits.shape[0], 4), np.int64),
        stream=workspace.stream,
    )


def confidence(
    sums: NDArray[np.int64], spec: EngineSpec, volumes_ml: Mapping[str, float]
) -> dict[str, float]:
    """Expected Dice of each region, 0 to 1, from the calibrated probabilities in the brain box.

    For probabilities p and the mask m of a region it is 2 sum(p m) / (sum(p) + sum(m)); for an
    empty region the probability 1 - max(p) that there is none.

    Args:
        sums: Of `probability_sums`, in host memory.
        spec: Has the regions.
        volumes_ml: Volume of each region in the result.
    """
    return {
        region: round(_expected_dice(row, volumes_ml[region]), 4)
        for region, row in zip(spec.regions, sums.tolist(), strict=True)
    }


def doubts(confidences: Mapping[str, float]) -> list[str]:
    """A warning if the confidence of a region is below its limit."""
    low = [
        f"{region} {value:.2f} (usually at least {DOUBTFUL[region]})"
        for region, value in confidences.items()
        if value < DOUBTFUL.get(region, 0.0)
    ]
    if not low:
        return []
    return [
        f"the result is doubtful: expected Dice of {', '.join(low)}; look at it before it is used, "
        "and check the images and whether there is a tumour"
    ]


def _expected_dice(sums: Sequence[int], volume_ml: float) -> float:
    """From a row of `ops.expected_dice`."""
    n_inside, everywhere, inside, most = (sums[0], *(n / UNITS for n in sums[1:]))
    if not volume_ml or not n_inside:
        return 1 - most
    return 2 * inside / (everywhere + n_inside)
