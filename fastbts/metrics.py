"""Overlap of a segmentation with its reference, on the input's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError
from fastbts.labels import REGION_LABELS


@dataclass(frozen=True)
class Overlap:
    """Voxels of two masks, counted.

    Attributes:
        n_both: In both masks.
        n_predicted: In the predicted mask.
        n_reference: In the reference.
        n_voxels: In all.
    """

    n_both: int
    n_predicted: int
    n_reference: int
    n_voxels: int

    @property
    def dice(self) -> float:
        """Dice coefficient; 1 if both masks are empty (BraTS convention)."""
        share = _share(2 * self.n_both, self.n_predicted + self.n_reference)
        return 1.0 if share is None else share

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference that was found; None without a reference."""
        return _share(self.n_both, self.n_reference)

    @property
    def precision(self) -> float | None:
        """Share of the prediction that is right; None without a prediction."""
        return _share(self.n_both, self.n_predicted)

    @property
    def specificity(self) -> float | None:
        """Share of the voxels outside the reference that were left out; of the whole image, so always near 1."""
        n_outside = self.n_voxels - self.n_reference
        return _share(n_outside - (self.n_predicted - self.n_both), n_outside)


def region_dice(predicted: NDArray[np.uint8], reference: NDArray[np.uint8]) -> dict[str, float]:
    """Dice of WT, TC and ET from two label maps; see `region_overlaps`."""
    return {
        region: overlap.dice for region, overlap in region_overlaps(predicted, reference).items()
    }


def region_overlaps(
    predicted: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> dict[str, Overlap]:
    """Overlap of WT, TC and ET from two label maps of one shape, values of `brats2021`; one pass over the voxels.

    Raises:
        InputError: The shapes differ, or a label is above 7.
    """
    if predicted.shape != reference.shape:
        raise InputError(
            f"labels of shape {predicted.shape} and a reference of shape {reference.shape}: expected one grid"
        )
    if max(predicted.max(), reference.max()) > 7:
        raise InputError(
            f"labels up to {predicted.max()} and {reference.max()}: expected BraTS values, 0 to 4"
        )
    # Any memory order: the sum has one, and which voxel is counted first does not matter.
    pairs = predicted * np.uint8(8) + reference
    counts = np.bincount(pairs.ravel(order="K"), minlength=64).reshape(8, 8)
    overlaps = {}
    for region, values in REGION_LABELS.items():
        both, of_predicted, of_reference = (
            counts[np.ix_(values, values)],
            counts[list(values)],
            counts[:, list(values)],
        )
        overlaps[region] = Overlap(
            int(both.sum()), int(of_predicted.sum()), int(of_reference.sum()), predicted.size
        )
    return overlaps


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
