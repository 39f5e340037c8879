"""Label schemes: which number stands for which tissue, in arrays and files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import OptionsError

NCR, ED, ET = 1, 2, 4
"""Values inside fastbts, those of `brats2021`: necrotic core, oedema, enhancing tumour."""

SCHEMES: dict[str, dict[str, int]] = {
    "brats2021": {"NCR": 1, "ED": 2, "ET": 4},
    "brats2023": {"NCR": 1, "ED": 2, "ET": 3},
    # Post-treatment names; a resection cavity (4) is not something the shipped network knows.
    "brats2024": {"NETC": 1, "SNFH": 2, "ET": 3},
}
REGION_SCHEME = "regions"
"""Separate masks of WT, TC and ET, one file each."""

REGION_LABELS = {"WT": (NCR, ED, ET), "TC": (NCR, ET), "ET": (ET,)}


def check_scheme(scheme: str) -> None:
    """Raises OptionsError for an unknown scheme."""
    if scheme != REGION_SCHEME and scheme not in SCHEMES:
        raise OptionsError(
            f"label scheme {scheme!r}: expected one of {', '.join([*SCHEMES, REGION_SCHEME])}"
        )


def to_scheme(labels: NDArray[np.uint8], scheme: str) -> NDArray[np.uint8]:
    """Translates labels of any shape from fastbts' values to a scheme's; keeps the memory order."""
    check_scheme(scheme)
    ncr, ed, et = SCHEMES[scheme].values()
    if (ncr, ed, et) == (NCR, ED, ET):
        return labels
    table = np.zeros(256, np.uint8)
    table[[NCR, ED, ET]] = ncr, ed, et
    return table[labels]


def region_mask(labels: NDArray[np.uint8], region: str) -> NDArray[np.uint8]:
    """Mask (0/1) of a region: "WT", "TC" or "ET"."""
    return np.isin(labels, REGION_LABELS[region]).astype(np.uint8)
