"""Writes the page of one result."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastbts.files import OpenFile, atomic_write
from fastbts.write.viewer.images import content
from fastbts.write.viewer.page import Panel, page
from fastbts.write.viewer.text import provenance, volumes, warnings
from fastbts.write.words import NO_NAME, one_line

if TYPE_CHECKING:
    from fastbts.segmentation import Segmentation


def write_viewer(
    path: str | Path,
    segmentation: Segmentation,
    open_file: OpenFile = atomic_write,
    *,
    name: str = "",
) -> str:
    """Writes the page of a result, see `viewer_page`.

    Args:
        path: The file.
        segmentation: Result of `Segmenter.predict` or `Study.segment`.
        open_file: `atomic_write`, or what `write_set` yields.
        name: Of the case, for the title.
    Returns:
        The file's sha256.
    Raises:
        OutputError: The file cannot be written.
    """
    html = viewer_page(segmentation, name)
    with open_file(Path(path)) as file:
        file.write(html)
    return hashlib.sha256(html).hexdigest()


def viewer_page(segmentation: Segmentation, name: str = "") -> bytes:
    """One HTML file with images, labels, volumes, warnings and provenance of a result.

    It needs no other file and no host: the images are in it at 8 bits, cut to the brain.
    """
    title, report = one_line(name) or NO_NAME, segmentation.report
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [volumes(report), warnings(segmentation.warnings), provenance(report, written)]
    return page(title, [Panel("", content(segmentation, title))], "\n".join(sections))
