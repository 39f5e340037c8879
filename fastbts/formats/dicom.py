"""Recognises DICOM files; `fastbts.study` reads them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

PREAMBLE = 128  # bytes of any content, before the four that say DICOM
N_LOOKED_AT = 200  # files of a folder


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM's part 10 says; False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except (OSError, ValueError):  # a folder, no permission, a NUL in the name
        return False


def holds_dicom(place: Path) -> bool:
    """Whether it is a DICOM file, or a folder with one among its first files at any depth."""
    return is_dicom(place) or any(map(is_dicom, islice(place.rglob("*"), N_LOOKED_AT)))
