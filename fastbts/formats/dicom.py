"""Recognises DICOM files; `fastbts.study` reads them."""

from __future__ import annotations

from pathlib import Path

PREAMBLE = 128  # bytes of any content, before the four that say DICOM


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM's part 10 says; False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except (OSError, ValueError):  # a folder, no permission, a NUL in the name
        return False
