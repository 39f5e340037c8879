"""Label schemes: the value of each tissue in label arrays and files."""

from __future__ import annotations

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
REGION_SCHEME = "regions"
"""Separate masks of WT, TC and ET, one file each."""

REGION_LABELS = {"WT": (NCR, ED, ET), "TC": (NCR, ET), "ET": (ET,)}
"""Labels of each region: whole tumour, tumour core, enhancing tumour."""


def check_scheme(scheme: str) -> None:
    """Raises OptionsError unless the scheme is a key of `SCHEMES` or `REGION_SCHEME`."""
    if scheme != REGION_SCHEME and scheme not in SCHEMES:
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


def region_mask(labels: NDArray[np.uint8], region: str) -> NDArray[np.uint8]:
    """Mask (0 or 1) of "WT", "TC" or "ET" from labels of any shape, values of `brats2021`."""
    return np.isin(labels, REGION_LABELS[region]).astype(np.uint8)
