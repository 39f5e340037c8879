"""Agreement of a segmentation with its reference, from the voxels that each region shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError
from fastbts.labels import REGION_LABELS


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of a predicted and a reference mask.

    Attributes:
        n_both: In both masks (true positives).
        n_predicted: In the predicted mask.
        n_reference: In the reference mask.
        n_voxels: In the image.
    """

    n_both: int
    n_predicted: int
    n_reference: int
    n_voxels: int

    @property
    def dice(self) -> float:
        """Dice coefficient; 1 if both masks are empty (BraTS convention)."""
        dice = _ratio(2 * self.n_both, self.n_predicted + self.n_reference)
        return 1.0 if dice is None else dice

    @property
    def sensitivity(self) -> float | None:
        """True positives / reference voxels; None if the reference is empty."""
        return _ratio(self.n_both, self.n_reference)

    @property
    def precision(self) -> float | None:
        """True positives / predicted voxels; None if the prediction is empty."""
        return _ratio(self.n_both, self.n_predicted)

    @property
    def specificity(self) -> float | None:
        """True negatives / negatives of the complete image, so always near 1."""
        n_negative = self.n_voxels - self.n_reference
        return _ratio(n_negative - (self.n_predicted - self.n_both), n_negative)


def region_dice(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    regions: Mapping[str, tuple[int, ...]] = REGION_LABELS,
) -> dict[str, float]:
    """Dice of each region from two label maps; arguments and errors as `region_confusion`."""
    confusion = region_confusion(predicted, reference, regions)
    return {region: counts.dice for region, counts in confusion.items()}


def region_confusion(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    regions: Mapping[str, tuple[int, ...]] = REGION_LABELS,
) -> dict[str, Confusion]:
    """Counts the voxels of each region in two label maps.

    Args:
        predicted: uint8, any shape.
        reference: The same shape; the memory order may differ.
        regions: Region -> its labels; by default WT, TC and ET with the values of `brats2021`.

    Raises:
        InputError: The shapes differ, or for WT, TC and ET a label is above 7.
    """
    largest = _checked(predicted, reference, regions)
    # In memory order, which is fastest: the order of counting does not matter.
    if largest < 8:
        pairs = (predicted * np.uint8(8) + reference).ravel(order="K")
        counts = np.bincount(pairs, minlength=64).reshape(8, 8)
    else:
        pairs = (predicted * np.uint16(256) + reference).ravel(order="K")
        counts = np.bincount(pairs, minlength=65536).reshape(256, 256)
    return {
        region: Confusion(
            n_both=int(counts[np.ix_(values, values)].sum()),
            n_predicted=int(counts[list(values)].sum()),
            n_reference=int(counts[:, list(values)].sum()),
            n_voxels=predicted.size,
        )
        for region, values in regions.items()
    }


def _checked(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    regions: Mapping[str, tuple[int, ...]],
) -> int:
    """The largest label that has to be counted."""
    if predicted.shape != reference.shape:
        raise InputError(
            f"labels of shape {predicted.shape} and a reference of shape {reference.shape}: "
            "expected one grid"
        )
    largest = int(max(predicted.max(), reference.max()))
    if largest > 7 and regions == REGION_LABELS:
        raise InputError(
            f"labels up to {predicted.max()} and {reference.max()}: expected BraTS values, 0 to 4"
        )
    return max(largest, *(label for labels in regions.values() for label in labels))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
