"""The folder of one study in a queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastbts.files import write_json
from fastbts.node import disk

STATES = ("incoming", "running", "sending", "done", "failed")
IMAGES, RESULTS, RECORD, REASON = "images", "results", "study.json", "reason.json"


def images_in(folder: Path) -> set[str]:
    """Names of its images."""
    return {path.name for path in (folder / IMAGES).glob("*")}


def read_record(folder: Path) -> dict[str, Any]:
    """What is known about it; empty for a new one, or where the disk lost it."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record


def write_record(folder: Path, **fields: Any) -> None:
    """Adds to what is known about it."""
    write_json(folder / RECORD, {**read_record(folder), **fields})
    disk.sync(folder)
