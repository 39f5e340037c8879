"""What tests of the queue do with it; results are two small files."""

from __future__ import annotations

from pathlib import Path

from fastbts.node.listing import rows
from fastbts.node.queue import Queue, study_id

A, B = study_id("1.2.3"), study_id("1.2.4")


def fill(queue: Queue, *instances: str, study: str = "1.2.3") -> None:
    for instance in instances:
        queue.add(study, instance, b"pixels")


def start(queue: Queue, study: str = A) -> Path:
    assert queue.next_quiet(0) == study
    folder = queue.start(study)
    assert folder
    return folder


def run(queue: Queue, study: str = A) -> None:
    """Segments with two results."""
    folder = start(queue, study)
    out = folder / "results"
    out.mkdir()
    for name in ("seg.dcm", "sr.dcm"):
        (out / name).write_bytes(b"result")
    queue.finish(study, [out / "seg.dcm", out / "sr.dcm"])


def send(queue: Queue, study: str = A) -> None:
    for result in queue.unsent(study):
        queue.accept(study, result)
    queue.finish_sending(study)


def states(queue: Queue) -> set[tuple[str, str, int]]:
    return {(row.study, row.state, row.n_images) for row in rows(queue.folder)}


def state_names(queue: Queue) -> list[str]:
    return sorted(row.state for row in rows(queue.folder))
