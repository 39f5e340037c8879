"""Peers that stop in the middle, send too much, or come too many at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastbts.node.listing import rows
from fastbts.node.queue import Queue
from tests.node.nodes import Archive, echo, running, send_images, until, write_images

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")

HALF_A_REQUEST = b"\x01\x00\x00"  # of 6 bytes before an A-ASSOCIATE-RQ


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("fastbts.node.receive.REQUEST_S", 2.0)
    monkeypatch.setattr("fastbts.node.receive.ABORT_S", 0.2)
    yield
    until("no association is left", lambda: n_associations() == 0)


def connect(port: int, opened: ExitStack, content: bytes = b"") -> socket.socket:
    connection = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection.sendall(content)
    return connection


def n_associations() -> int:
    return sum("AcceptorThread" in thread.name for thread in threading.enumerate())


def test_peers_that_go_silent_lose_their_place(
    queue: Queue,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fastbts.node.server.SILENT_S", 5.0)
    monkeypatch.setattr("fastbts.node.receive.MAX_ASSOCIATIONS", 3)
    with running(queue, archive) as port, ExitStack() as opened:
        for _ in range(3):
            connect(port, opened, HALF_A_REQUEST)
        until("all are there", lambda: n_associations() >= 3)
        until("there is room again", lambda: echo(port) == 0)
    assert "refused an association: there are 3 already" in caplog.text


def test_it_stops_although_a_peer_is_silent(queue: Queue, archive: Archive) -> None:
    before = threading.enumerate()
    with ExitStack() as opened:
        with running(queue, archive) as port:
            connect(port, opened, HALF_A_REQUEST)
            until("it is there", lambda: n_associations() == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 30  # not as long as a peer may be silent
    # Else the process would wait for them at its end.
    until(
        "the others have ended", lambda: all(t.daemon or t in before for t in threading.enumerate())
    )


def test_more_connections_than_allowed_are_closed(
    queue: Queue, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbts.node.server.MAX_CONNECTIONS", 2)
    with running(queue, archive) as port, ExitStack() as opened:
        for n in range(2):
            connect(port, opened)
            until("it is there", lambda n=n: n_associations() == n + 1)
        connection = connect(port, opened)
        connection.settimeout(30)
        assert connection.recv(1) == b""


def test_an_object_that_is_too_large_ends_its_association(
    tmp_path: Path, queue: Queue, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit counts for one object, not for a study."""
    files = write_images(tmp_path / "study")
    largest = max(path.stat().st_size for path in files)
    monkeypatch.setattr("fastbts.node.server.MAX_BYTES", 2 * largest)
    dataset = pydicom.dcmread(files[-1])
    dataset.PixelData = bytes(3 * largest)
    dataset.save_as(files[-1])
    with running(queue, archive, quiet_s=3600) as port:
        assert send_images(files, port, answer_s=5) == [0] * 5
    assert [row.n_images for row in rows(queue.folder)] == [5]


def test_deflated_objects_are_not_taken(tmp_path: Path, queue: Queue, archive: Archive) -> None:
    """A few of their bytes may become any number."""
    path = write_images(tmp_path / "study", n=2)[0]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    with running(queue, archive) as port:
        assert send_images([path], port) == []
    assert rows(queue.folder) == []
