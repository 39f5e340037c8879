"""Label schemes: the value of each tissue in label arrays and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import OptionsError

NCR, ED, ET = 1, 2, 4
"""Values used inside fastbts, equal to `brats2021`: necrotic core, oedema, enhancing tumour."""

SCHEMES: dict[str, dict[str, int]] = {
    "brats2021": {"NCR": 1, "ED": 2, "ET": 4},
    "brats2023": {"NCR": 1, "ED": 2, "ET": 3},
    # Names for cases after treatment. The shipped network has no resection cavity (4).
    "brats2024": {"NETC": 1, "SNFH": 2, "ET": 3},
}
# Yellow, blue and vermilion of Okabe and Ito (2008), "Color universal design": distinct with every
# kind of colour blindness.
COLOURS = {"NCR": (240, 228, 66), "ED": (86, 180, 233), "ET": (230, 85, 0)}
COLOURS |= {"NETC": COLOURS["NCR"], "SNFH": COLOURS["ED"]}
"""Of each tissue in pictures, DICOM and `.seg.nrrd`, RGB, 0 to 255."""
OTHER_COLOURS = (
    *((86, 180, 233), (240, 228, 66), (230, 85, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (0, 114, 178), (255, 255, 255)),
)
"""Of the labels of other regions, in turn; also by Okabe and Ito."""
REGION_SCHEME = "regions"
"""Separate masks of WT, TC and ET, one file each."""

ENGINE_SCHEME = "engine"
"""The engine's own labels, for regions other than WT, TC and ET."""

REGION_LABELS = {"WT": (NCR, ED, ET), "TC": (NCR, ET), "ET": (ET,)}
"""Labels of each region: whole tumour, tumour core, enhancing tumour."""


def is_glioma(regions: Mapping[str, Sequence[int]]) -> bool:
    """Whether these are WT, TC and ET with the labels of `REGION_LABELS`, in this order."""
    return [*regions.items()] == [*REGION_LABELS.items()]


def label_table(labels: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Label of each set of regions, (2^K,); bit k of the index says whether region k is in the set.

    It is the label that is in exactly these regions, the first of several. Where there is none, the
    smallest region decides (the last of equals), by its label that is in the fewest regions. So, as
    in nnU-Net, a region counts even where the one around it does not.

    Args:
        labels: Of each of the K regions.
    """
    listed = dict.fromkeys(label for region in labels for label in region)
    sets = {x: sum(1 << k for k, region in enumerate(labels) if x in region) for x in listed}
    table, index = np.zeros(1 << len(labels), np.uint8), np.arange(1 << len(labels))
    for k in sorted(range(len(labels)), key=lambda k: -len(labels[k])):
        table[index >> k & 1 == 1] = min(labels[k], key=lambda x: sets[x].bit_count())
    for label, regions in reversed(sets.items()):
        table[regions] = label
    return table


def label_names(regions: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Name of each label that `label_table` gives -> its value: its smallest region.

    Args:
        regions: Region -> its labels.
    """
    names: dict[str, int] = {}
    for label in dict.fromkeys(label for labels in regions.values() for label in labels):
        around = {name: {*labels} for name, labels in regions.items() if label in labels}
        inner = [n for n in around if not any(other < around[n] for other in around.values())]
        names.setdefault(" & ".join(inner), label)
    return names


def check_scheme(scheme: str | None) -> None:
    """Raises OptionsError unless the scheme is a key of `SCHEMES`, `REGION_SCHEME` or None."""
    if scheme not in (None, REGION_SCHEME, *SCHEMES):
        raise OptionsError(
            f"label scheme {scheme!r}: expected one of {', '.join([*SCHEMES, REGION_SCHEME])}"
        )


def to_scheme(labels: NDArray[np.uint8], scheme: str) -> NDArray[np.uint8]:
    """Translates labels from the values used inside fastbts to those of a scheme.

    Args:
        labels: uint8, any shape.
        scheme: A key of `SCHEMES`.

    Returns:
        uint8, same shape and memory order; for `brats2021` the same array.

    Raises:
        OptionsError: Unknown scheme.
    """
    check_scheme(scheme)
    ncr, ed, et = SCHEMES[scheme].values()
    if (ncr, ed, et) == (NCR, ED, ET):
        return labels
    table = np.zeros(256, np.uint8)
    table[[NCR, ED, ET]] = ncr, ed, et
    return table[labels]


def region_mask(labels: NDArray[np.uint8], region: Sequence[int]) -> NDArray[np.uint8]:
    """Mask (0 or 1) of a region from labels of any shape.

    Args:
        labels: uint8.
        region: Its labels.
    """
    return np.isin(labels, region).astype(np.uint8)
