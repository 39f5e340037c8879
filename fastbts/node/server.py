"""pynetdicom's server on sockets that answer at once, and that no peer can stop."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from contextlib import suppress
from typing import Any

from fastbts.errors import optional_module

log = logging.getLogger("fastbts.node")
EXTRA = "dicom"
HANDSHAKE_S = 5.0
SILENT_S = 60.0  # then a peer that stopped in the middle of a message loses its connection
MAX_CONNECTIONS = 20  # more than associations: those get an answer
MAX_BYTES = 2**30  # of one object with its messages; they are in memory


def server_class() -> Any:
    """A server for `pynetdicom.AE.make_server`.

    Raises:
        DeviceError: pynetdicom is not installed.
    """
    transport = optional_module("pynetdicom.transport", EXTRA)

    class Server(transport.ThreadedAssociationServer):  # type: ignore[misc,name-defined]
        def get_request(self) -> Any:
            connection, peer = self.socket.accept()
            if not self.ssl_context:
                return _PromptSocket(fileno=connection.detach()), peer
            self.ssl_context.sslsocket_class = _PromptTlsSocket
            try:
                return self.ssl_context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                ), peer
            except OSError:  # the peer has gone; socketserver ignores this
                self.handle_error(connection, peer)
                raise

        def verify_request(self, request: Any, client_address: Any) -> bool:
            return len(self.active_associations) < MAX_CONNECTIONS

        def finish_request(self, request: Any, client_address: Any) -> None:
            """In a thread of its own: a handshake keeps nobody waiting."""
            if self.ssl_context:
                request.settimeout(HANDSHAKE_S)
                request.do_handshake()
            request.settimeout(SILENT_S)
            super().finish_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            error = sys.exception()
            why = error.reason if isinstance(error, ssl.SSLError) else type(error).__name__
            log.warning("refused a connection from %s: %s", client_address[0], why)

    return Server


def object_ends(association: Any) -> None:
    """Begins to count the bytes of an association's next object."""
    if connection := _connection(association):
        connection.n_bytes = 0


def close_connection(association: Any) -> None:
    """Also while a thread reads from it."""
    if connection := _connection(association):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _connection(association: Any) -> Any:
    """None where the peer has closed it."""
    return association.dul.socket and association.dul.socket.socket


class _Prompt:
    """Acknowledges without delay, and takes no more than one object may have.

    Most senders send an image as two short parts and wait for the acknowledgement of the first,
    which systems delay by 40 ms. They forget soon that they were asked not to.
    """

    n_bytes = 0

    def recv(self, *args: Any) -> bytes:
        if hasattr(socket, "TCP_QUICKACK"):
            self.setsockopt(  # type: ignore[attr-defined]
                socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1
            )
        content: bytes = super().recv(*args)  # type: ignore[misc]
        self.n_bytes += len(content)
        if self.n_bytes > MAX_BYTES:
            raise OSError(f"an object of more than {MAX_BYTES} bytes")
        return content


class _PromptSocket(_Prompt, socket.socket):
    pass


class _PromptTlsSocket(_Prompt, ssl.SSLSocket):
    pass
