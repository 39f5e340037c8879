"""TLS on the node's server and on its own connections, with certificates made for the test."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from fastbts.errors import OptionsError
from fastbts.node.listing import rows
from fastbts.node.queue import Queue
from fastbts.node.receive import Address
from fastbts.node.send import Destination
from fastbts.node.tls import Tls
from tests.node.certificates import write_certificates
from tests.node.nodes import Archive, echo, running, send_images, until, write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; node, scanner and archive signed by it; stranger by another one."""
    return write_certificates(
        tmp_path_factory.mktemp("tls"), ("node", "scanner", "archive"), ("stranger",)
    )


def tls(folder: Path, name: str) -> Tls:
    return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


def secure(folder: Path, name: str) -> dict[str, tuple[ssl.SSLContext, str]]:
    """Options of a sender."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.pem")
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return {"tls_args": (context, "127.0.0.1")}


def test_a_study_goes_through_tls_both_ways(tmp_path: Path, queue: Queue, folder: Path) -> None:
    archive = Archive(tls=tls(folder, "archive").server())
    files = write_images(tmp_path / "study", n=2)
    to = Destination("ARCHIVE", "127.0.0.1", archive.port, tls(folder, "node"))
    address = Address(port=0, tls=tls(folder, "node"))
    with running(queue, archive, address=address, destination=to) as port:
        assert send_images(files, port, **secure(folder, "scanner")) == [0] * 4
        until("the study is done", lambda: [r.state for r in rows(queue.folder)] == ["done"])
    archive.close()
    assert list(archive.taken.values()) == [1, 1]


def test_who_has_no_certificate_of_ours_is_refused(
    queue: Queue, archive: Archive, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(queue, archive, address=Address(port=0, tls=tls(folder, "node"))) as port:
        assert echo(port) is None
        assert echo(port, **secure(folder, "")) is None
        assert echo(port, **secure(folder, "stranger")) is None
        assert echo(port, **secure(folder, "scanner")) == 0
        refused = "refused a connection from 127.0.0.1: CERTIFICATE_VERIFY_FAILED"
        until("the log says why", lambda: refused in caplog.text)


def test_results_go_to_no_stranger(tmp_path: Path, queue: Queue, folder: Path) -> None:
    archive = Archive(tls=tls(folder, "stranger").server())
    to = Destination("ARCHIVE", "127.0.0.1", archive.port, tls(folder, "node"))
    with running(queue, archive, destination=to) as port:
        send_images(write_images(tmp_path / "study", n=2), port)
        until("the result waits", lambda: [r.state for r in rows(queue.folder)] == ["sending"])
    archive.close()
    assert archive.taken == {}


def test_a_silent_connection_does_not_stop_the_others(
    queue: Queue, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("fastbts.node.server.HANDSHAKE_S", 120.0)
    with (
        running(queue, archive, address=Address(port=0, tls=tls(folder, "node"))) as port,
        socket.create_connection(("127.0.0.1", port)),
    ):
        assert echo(port, **secure(folder, "scanner")) == 0


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("no certificate")
    with pytest.raises(OptionsError, match=r"not a certificate and its key in PEM that can be re"):
        Tls(path, path).server()
    with pytest.raises(OptionsError, match="No such file"):
        Tls(tmp_path / "none", path).client()
