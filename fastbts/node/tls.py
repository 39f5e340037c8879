"""TLS of a node, for those who connect to it and for its own connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from fastbts.errors import OptionsError


@dataclass(frozen=True)
class Tls:
    """Files in PEM.

    Attributes:
        cert: The node's certificate.
        key: Its private key.
        ca: Certificates of those who sign the peers'; None: who connects needs no certificate, and
            the system's list counts for the node's own connections.
    """

    cert: Path
    key: Path
    ca: Path | None = None

    def server(self) -> ssl.SSLContext:
        """For those who connect."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        if self.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> ssl.SSLContext:
        """For the node's own connections: the peer's certificate must be of its host's name."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        if not self.ca:
            context.load_default_certs()
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        try:
            context.load_cert_chain(self.cert, self.key)
            if self.ca:
                context.load_verify_locations(self.ca)
        except OSError as error:  # also ssl.SSLError
            files = ", ".join(str(path) for path in (self.cert, self.key, self.ca) if path)
            raise OptionsError(
                f"{files}: not a certificate and its key in PEM that can be read here: {error}"
            ) from error
        return context
