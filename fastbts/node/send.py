"""Sends results to another DICOM node by C-STORE."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastbts.errors import OptionsError, optional_module
from fastbts.node.receive import checked_aet, entity_of
from fastbts.node.server import EXTRA
from fastbts.node.tls import Tls

log = logging.getLogger("fastbts.node")
ACCEPTED = ("Success", "Warning")


@dataclass(frozen=True)
class Destination:
    """Who gets the results.

    Attributes:
        aet: The AE title to call.
        host: Its host.
        port: Its port.
        tls: None for plain connections.
    """

    aet: str
    host: str
    port: int
    tls: Tls | None = None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> Destination:
        """Reads "AE@HOST:PORT"; an IPv6 address may have brackets.

        Raises:
            OptionsError: It is written in another way.
        """
        aet, at, address = text.rpartition("@")
        host, _, port = address.rpartition(":")
        if not (at and host and port.isdecimal() and 0 < int(port) < 65536):
            raise OptionsError(f"{text!r}: expected AE@HOST:PORT, for example PACS@10.0.0.5:104")
        return cls(checked_aet(aet), host.strip("[]"), int(port), tls)


def send(
    files: Sequence[Path], aet: str, destination: Destination
) -> Iterator[tuple[Path, str | None]]:
    """Sends DICOM files in one association.

    Args:
        files: What to send.
        aet: The AE title of the sender.
        destination: Who gets them.
    Yields:
        Each file with None if it was accepted, else with the reason; as soon as that is known.
    """
    with _association(files, aet, destination) as association:
        for file in files:
            yield file, _sent(association, file, destination)


@contextmanager
def _association(files: Sequence[Path], aet: str, destination: Destination) -> Iterator[Any]:
    entity = entity_of(aet)
    dcmread = optional_module("pydicom", EXTRA).dcmread
    for file in files:
        meta = dcmread(file, stop_before_pixels=True).file_meta
        entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    tls = (destination.tls.client(), destination.host) if destination.tls else None
    association = entity.associate(
        destination.host, destination.port, ae_title=destination.aet, tls_args=tls
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _sent(association: Any, file: Path, destination: Destination) -> str | None:
    """None if a file was accepted, else the reason."""
    code_to_category = optional_module("pynetdicom.status", EXTRA).code_to_category
    if not association.is_established:
        kind = "refused the association" if association.is_rejected else "cannot be reached"
        return f"{destination.aet} {kind}"
    try:
        status = association.send_c_store(file)
    except ValueError:  # pynetdicom's text may quote the object
        return f"{destination.aet} takes no objects of this kind"
    if "Status" not in status:
        return f"{destination.aet} did not answer"
    if code_to_category(status.Status) not in ACCEPTED:
        return f"{destination.aet} refused it with status 0x{status.Status:04X}"
    return None
