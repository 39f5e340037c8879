"""Certificates for tests of TLS; nobody else trusts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

x509 = pytest.importorskip("cryptography.x509", reason="needs fastbts[sign]")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402


def write_certificates(folder: Path, names: Sequence[str], strangers: Sequence[str]) -> Path:
    """Writes ca.pem, and NAME.pem and NAME.key for 127.0.0.1; strangers are signed by another."""
    for ca, signed in (("ca", names), ("other", strangers)):
        key = _write_key(folder / f"{ca}.key")
        authority = _certificate(ca, key.public_key(), ca, key, is_ca=True)
        _write(folder / f"{ca}.pem", authority)
        for name in signed:
            public = _write_key(folder / f"{name}.key").public_key()
            _write(folder / f"{name}.pem", _certificate(name, public, ca, key, is_ca=False))
    return folder


def _write_key(path: Path) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key


def _write(path: Path, certificate: Any) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(name: str, public: Any, issuer: str, key: Any, is_ca: bool) -> Any:
    now = datetime.now(UTC)

    def named(text: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
