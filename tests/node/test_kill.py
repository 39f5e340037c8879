"""A node that is killed and started again loses nothing and sends nothing twice.

Its segmentation is a fake that takes time; the queue, the network and the kills are real.
"""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fastbts.node.listing import rows
from tests.node.nodes import (
    DEADLINE_S,
    PATIENT,
    Archive,
    port_of,
    process_of,
    send_images,
    until,
    write_images,
)

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
pytestmark = pytest.mark.slow


def node(queue: Path, archive: Archive, seconds: float = 0) -> AbstractContextManager[Any]:
    to = f"ARCHIVE@127.0.0.1:{archive.port}"
    return process_of("-m", "tests.node.fake_node", queue, to, seconds)


def states(queue: Path) -> list[tuple[str, int]]:
    return sorted((row.state, row.n_images) for row in rows(queue))


def check_done(queue: Path, archive: Archive, files: list[Path]) -> None:
    """A second node finishes the study; the archive has each result once."""
    with node(queue, archive):
        until("the study is done", lambda: states(queue) == [("done", 0)])
    assert list(archive.taken.values()) == [1, 1]
    assert archive.studies == {str(pydicom.dcmread(files[0]).StudyInstanceUID)}


def test_killed_while_it_receives(tmp_path: Path, archive: Archive) -> None:
    files, queue = write_images(tmp_path / "study", n=15), tmp_path / "queue"
    confirmed: list[int] = []
    with node(queue, archive) as (process, lines):
        sender = threading.Thread(
            target=lambda: confirmed.extend(send_images(files, port_of(lines), answer_s=3))
        )
        sender.start()
        until("some images are there", lambda: len(list(queue.glob("incoming/*/images/*"))) > 5)
        process.kill()
        sender.join()
    assert 5 <= len(confirmed) < len(files)
    assert [n >= len(confirmed) for _, n in states(queue)] == [True]
    with node(queue, archive) as (_, lines):
        assert send_images(files, port_of(lines)) == [0] * len(files)
        until("the study is done", lambda: states(queue) == [("done", 0)])
    # The first part alone may have been segmented, too, if the sender was slow.
    assert set(archive.taken.values()) == {1}


def test_killed_while_it_segments(tmp_path: Path, archive: Archive) -> None:
    files, queue = write_images(tmp_path / "study"), tmp_path / "queue"
    with node(queue, archive, 60) as (process, lines):
        assert send_images(files, port_of(lines)) == [0] * len(files)
        until("the study runs", lambda: states(queue) == [("running", len(files))])
        process.kill()
    check_done(queue, archive, files)


def test_killed_while_it_sends(tmp_path: Path, archive: Archive) -> None:
    """Between its two results: the archive has the first, and waits with the second."""
    files, queue = write_images(tmp_path / "study"), tmp_path / "queue"
    asked, go_on = threading.Event(), threading.Event()

    def answer(dataset: pydicom.Dataset) -> int:
        if "SR" in dataset.SOPClassUID.name:
            asked.set()
            go_on.wait(DEADLINE_S)
            return 0xA700  # the sender is gone
        return 0

    archive.answer = answer
    with node(queue, archive) as (process, lines):
        send_images(files, port_of(lines))
        assert asked.wait(DEADLINE_S)
        process.kill()
    go_on.set()
    archive.answer = lambda dataset: 0
    check_done(queue, archive, files)


def test_asked_to_end_it_puts_its_study_back(tmp_path: Path, archive: Archive) -> None:
    files, queue = write_images(tmp_path / "study"), tmp_path / "queue"
    with node(queue, archive, 60) as (process, lines):
        send_images(files, port_of(lines))
        until("the study runs", lambda: states(queue) == [("running", len(files))])
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert states(queue) == [("incoming", len(files))]
    text = "".join(lines)
    assert "put back" in text
    for secret in ("Sechser", PATIENT["PatientID"]):
        assert secret not in text
    check_done(queue, archive, files)


def test_asked_twice_it_ends_at_once(tmp_path: Path, archive: Archive) -> None:
    """And loses nothing."""
    files, queue = write_images(tmp_path / "study"), tmp_path / "queue"
    with node(queue, archive, -1) as (process, lines):
        send_images(files, port_of(lines))
        until("the study runs", lambda: states(queue) == [("running", len(files))])
        process.send_signal(signal.SIGTERM)
        until("it stops", lambda: "stopping" in "".join(lines))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    check_done(queue, archive, files)
