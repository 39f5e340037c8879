"""The node's server: answers C-ECHO, and takes images by C-STORE into the queue."""

from __future__ import annotations

import logging
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import ip_address
from typing import Any

from fastbts.errors import OptionsError, optional_module
from fastbts.node.queue import Queue, QueueFullError, study_id
from fastbts.node.server import EXTRA, close_connection, object_ends, server_class
from fastbts.node.tls import Tls

log = logging.getLogger("fastbts.node")
SUCCESS, OUT_OF_RESOURCES, NO_MATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
MAX_ASSOCIATIONS = 10
REQUEST_S = 30.0  # for an association to be asked for, and answered
ABORT_S = 2.0
PRESENTATION = 3  # source of a refusal for want of room, not for a title
DEFLATED = "1.2.840.10008.1.2.1.99"  # not taken: 1 MB may become 1 GB


@dataclass(frozen=True)
class Address:
    """Where the node listens, and to whom.

    Attributes:
        aet: Its AE title, 1 to 16 characters; others must call it so.
        port: 0 for any free one.
        host: The interface's address.
        allow: AE titles that may send; empty: all.
        tls: None for plain connections.
    """

    aet: str = "FASTBTS"
    port: int = 11112
    host: str = "127.0.0.1"
    allow: tuple[str, ...] = field(default=())
    tls: Tls | None = None


@contextmanager
def serving(queue: Queue, address: Address) -> Iterator[int]:
    """Receives into the queue during the block.

    Yields:
        The port.
    Raises:
        OptionsError: An AE title is none, or the address cannot be used.
        DeviceError: pynetdicom is not installed.
    """
    server = _server(queue, address)
    thread = threading.Thread(target=server.serve_forever, args=[0.1], daemon=True)
    thread.start()
    if not (address.allow or is_loopback(address.host)):
        log.warning("any AE title may send from the network; --allow restricts it")
    try:
        yield server.server_address[1]
    finally:
        _abort(server.ae.active_associations)
        socketserver.BaseServer.shutdown(server)
        server.server_close()


def _abort(associations: Sequence[Any]) -> None:
    """Ends associations; those whose peer does not follow, the hard way."""
    threads = [threading.Thread(target=one.abort, daemon=True) for one in associations]
    for thread in threads:
        thread.start()
    end = time.monotonic() + ABORT_S
    for association, thread in zip(associations, threads, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        if association.dul.is_alive():
            close_connection(association)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server(queue: Queue, address: Address) -> Any:
    entity = entity_of(address.aet)
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.require_called_aet = True
    entity.require_calling_aet = [checked_aet(aet) for aet in address.allow]
    net = optional_module("pynetdicom", EXTRA)
    syntaxes = [uid for uid in net.ALL_TRANSFER_SYNTAXES if uid != DEFLATED]
    for context in net.AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, syntaxes)
    entity.add_supported_context("1.2.840.10008.1.1")  # Verification: C-ECHO
    received: dict[Any, set[str]] = {}  # association -> studies
    handlers = [
        (net.evt.EVT_C_STORE, _store, [queue, received]),
        (net.evt.EVT_CONN_CLOSE, _end, [queue, received]),
        (net.evt.EVT_REJECTED, _report_refusal),
    ]
    try:
        return entity.make_server(
            (address.host, address.port),
            ssl_context=address.tls.server() if address.tls else None,
            evt_handlers=handlers,
            server_class=server_class(),
        )
    except OSError as error:
        raise OptionsError(
            f"{address.host}:{address.port}: cannot listen here: {error.strerror}; choose another "
            "--host or --port"
        ) from error


def entity_of(aet: str) -> Any:
    """An application entity of pynetdicom with limits on how long it waits."""
    entity = optional_module("pynetdicom", EXTRA).AE(checked_aet(aet))
    entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = REQUEST_S, 60, 60
    entity.connection_timeout = 10
    return entity


def checked_aet(aet: str) -> str:
    """An AE title.

    Raises:
        OptionsError: It is none.
    """
    if not (0 < len(aet.strip()) <= 16 and aet.isascii() and aet.isprintable() and "\\" not in aet):
        raise OptionsError(f"AE title {aet!r}: expected 1 to 16 ASCII characters")
    return aet.strip()


def _report_refusal(event: Any) -> None:
    request, answer = event.assoc.requestor.primitive, event.assoc.acceptor.primitive
    if answer.result_source == PRESENTATION:
        log.warning("refused an association: there are %d already", MAX_ASSOCIATIONS)
        return
    log.warning(
        "refused an association: calling AE title %r at %s, called %r; see --allow and --aet",
        *(request.calling_ae_title, event.assoc.requestor.address, request.called_ae_title),
    )


def _end(event: Any, queue: Queue, received: dict[Any, set[str]]) -> None:
    """Studies of an association that was not released may be incomplete."""
    # One may have ended before its last image was stored.
    for association in [event.assoc, *(one for one in list(received) if not one.is_alive())]:
        for study in received.pop(association, ()):
            queue.end(study, released=association.is_released)
            if not association.is_released:
                log.warning("study %s: its sender broke off", study)


def _store(event: Any, queue: Queue, received: dict[Any, set[str]]) -> int:
    """Answers a C-STORE; success means that the image is on disk.

    What is no image, for example a segmentation that an archive sends back, is not kept.
    """
    object_ends(event.assoc)
    if "Image Storage" not in event.request.AffectedSOPClassUID.name:
        return SUCCESS
    content = event.encoded_dataset()
    try:
        study, instance = _uids(content)
    except Exception as error:  # pydicom raises almost anything for a damaged dataset
        log.warning("refused an image that cannot be read: %s", type(error).__name__)
        return CANNOT_UNDERSTAND
    if instance != event.request.AffectedSOPInstanceUID:
        log.warning("study %s: refused an image with another UID than announced", study_id(study))
        return NO_MATCH
    studies = received.setdefault(event.assoc, set())
    if study_id(study) not in studies:
        studies.add(study_id(study))
        queue.begin(study_id(study))
    try:
        queue.add(study, instance, content)
    except QueueFullError as full:
        log.warning("study %s: refused an image, the queue is full: %s", study_id(study), full)
        return OUT_OF_RESOURCES
    return SUCCESS


def _uids(content: bytes) -> tuple[str, str]:
    tags = ["StudyInstanceUID", "SOPInstanceUID"]
    dataset = optional_module("pydicom", EXTRA).dcmread(
        BytesIO(content), specific_tags=tags, stop_before_pixels=True
    )
    study, instance = (str(dataset[tag].value) for tag in tags)
    if not study or not instance:
        raise ValueError("an empty UID")
    return study, instance
