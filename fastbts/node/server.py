"""pynetdicom's server on sockets that answer at once, and that no peer can stop."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from fastbts.errors import optional_module

EXTRA = "dicom"
HANDSHAKE_S = 5.0


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
            # The handshake is done before the next connection is accepted, and must not last.
            connection.settimeout(HANDSHAKE_S)
            self.ssl_context.sslsocket_class = _PromptTlsSocket
            secure = self.ssl_context.wrap_socket(connection, server_side=True)
            secure.settimeout(None)
            return secure, peer

    return Server


def _acknowledge(connection: socket.socket) -> None:
    """Asks for acknowledgements without delay; the system forgets this soon.

    Most senders send an image as two short parts and wait for the acknowledgement of the first,
    which systems delay by 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _PromptSocket(socket.socket):
    def recv(self, *args: Any) -> bytes:
        _acknowledge(self)
        return super().recv(*args)


class _PromptTlsSocket(ssl.SSLSocket):
    def recv(self, *args: Any) -> bytes:
        _acknowledge(self)
        return super().recv(*args)
