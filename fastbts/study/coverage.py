"""How much of the brain each image of a study shows, and whether the reference cuts it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.study.align import Alignment
from fastbts.study.series import Series
from fastbts.volume import Geometry

MIN_COVERED = 0.98  # of the brain: less is more than the edge of a mask
MAX_CUT_CM2 = 40.0  # on a face; a cut through cerebellum or stem has up to 30, the middle 130
STEP = 11  # every n-th voxel of the brain is looked at
ENDS = (("left", "right"), ("back", "front"), ("bottom", "top"))


@dataclass(frozen=True)
class Coverage:
    """What is seen of the brain.

    Attributes:
        shares: Modality -> share of the brain inside the field of view, 0 to 1.
        cut_cm2: End of the reference, for example "top" -> area of the brain on its last slice.
    """

    shares: Mapping[str, float]
    cut_cm2: Mapping[str, float]

    def warnings(self, series: Mapping[str, Series], reference: str) -> Iterator[str]:
        """What the user must know."""
        for modality, share in self.shares.items():
            if share < MIN_COVERED:
                yield (
                    f"{modality}: {series[modality].label} shows {share:.0%} of the brain; "
                    "tumour outside its field of view may be missed"
                )
        for end, area in self.cut_cm2.items():
            if area > MAX_CUT_CM2:
                yield (
                    f"{reference}: {series[reference].label} cuts the brain off at the {end} "
                    f"({area:.0f} cm2): volumes are those inside it"
                )

    def report(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "brain_inside": {modality: round(share, 4) for modality, share in self.shares.items()},
            "cut_cm2": {end: round(area, 1) for end, area in self.cut_cm2.items() if area},
        }


def coverage(
    brain: Any, grid: Geometry, series: Mapping[str, Series], alignment: Alignment
) -> Coverage:
    """Compares the brain, a mask (i, j, k) on the grid, with the fields of view."""
    index = np.argwhere(brain)[::STEP]
    points = grid.affine @ np.c_[index, np.ones(len(index))].T
    shares = {
        modality: _inside(points, alignment.matrix(modality) @ one.geometry.affine, one.geometry)
        for modality, one in series.items()
    }
    return Coverage(shares, _cuts(brain, grid))


def _inside(points: NDArray[np.float64], affine: NDArray[np.float64], image: Geometry) -> float:
    """Share of points (4, n) in mm that are inside an image with this affine; 1 of none."""
    place = (np.linalg.inv(affine) @ points)[:3].T
    outside = np.any((place < -0.5) | (place > np.array(image.shape) - 0.5), axis=1)
    return 1 - int(np.count_nonzero(outside)) / max(1, len(place))


def _cuts(brain: Any, grid: Geometry) -> dict[str, float]:
    """Area of the mask in cm2 on each face of its grid."""
    areas = {}
    for axis, (patient_axis, step) in enumerate(grid.ras_axes):
        cm2 = 10 * grid.voxel_ml / grid.spacing_mm[axis]
        for end in (0, -1):
            name = ENDS[patient_axis][(end == -1) == (step > 0)]
            areas[name] = cm2 * int(np.count_nonzero(np.moveaxis(brain, axis, 0)[end]))
    return areas
