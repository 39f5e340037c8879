"""What a queue holds, and failed studies that are tried again; also while a node uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastbts.errors import CaseError
from fastbts.node import disk
from fastbts.node.folder import REASON, STATES, images_in, read_record, write_record


@dataclass(frozen=True)
class Row:
    """A study of a queue, as it is listed."""

    study: str
    state: str
    n_images: int
    reason: str


def rows(folder: str | Path) -> list[Row]:
    """The studies of a queue, also while a node uses it."""
    found = [p for state in STATES for p in sorted(Path(folder, state).glob("*"))]
    return [Row(p.name, p.parent.name, len(images_in(p)), _reason(p)) for p in found]


def _reason(folder: Path) -> str:
    try:
        reason = json.loads((folder / REASON).read_bytes())
    except (FileNotFoundError, ValueError):
        why = read_record(folder).get("unsent") if folder.parent.name == "sending" else None
        return f"not sent: {why}" if why else ""
    return " ".join(f"{reason['error']}: {reason['message']} {reason.get('hint', '')}".split())


def retry(folder: str | Path, studies: Sequence[str] = ()) -> list[str]:
    """Makes failed studies wait again, also while a node uses the queue.

    Args:
        folder: The queue.
        studies: IDs; none: all that failed.
    Raises:
        CaseError: One of them has not failed.
    """
    failed = [path.name for path in sorted(Path(folder, "failed").glob("*"))]
    for study in studies or failed:
        if study not in failed:
            raise CaseError(f"{folder}: no failed study {study}; failed are: {failed or 'none'}")
        source, target = Path(folder, "failed", study), Path(folder, "incoming", study)
        write_record(source, attempts=0)
        if not target.exists():  # else both parts are joined when it starts
            disk.move(source, target)
    return list(studies or failed)
