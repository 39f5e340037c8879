"""Names and colours that pictures and pages show, and text that is safe to show."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from itertools import cycle

from fastbts.labels import COLOURS, OTHER_COLOURS

Colour = tuple[int, int, int]

TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
TISSUES = {
    "NCR": "necrotic core",
    "NETC": "non-enhancing tumour core",
    "ED": "oedema",
    "SNFH": "surrounding FLAIR hyperintensity",
    "ET": "enhancing tumour",
}
REGION_WORDS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
NO_NAME = "Brain tumour segmentation"
"""Title of a result whose case has no name."""
MAX_NAME = 80  # characters


def colours_of(names: Collection[str]) -> dict[str, Colour]:
    """Colours of the labels of a scheme, or of others in turn; RGB, 0 to 255."""
    if {*names} <= {*COLOURS}:
        return {name: COLOURS[name] for name in names}
    return dict(zip(names, cycle(OTHER_COLOURS), strict=False))


def one_line(text: str, most: int = MAX_NAME) -> str:
    """Text from files on one line: without control characters, and with "..." for what is too long.

    Control characters are those of Unicode, too: some turn the direction of the text around.
    """
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
