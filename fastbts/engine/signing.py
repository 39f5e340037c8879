"""Signatures of engine files: Ed25519 (RFC 8032), in the manifest; needs the extra `[sign]`.

See FORMAT.md.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from fastbts.engine.file import EngineFile, pack_engine, read_engine_file
from fastbts.errors import DeviceError, EngineFileError, OptionsError, OutputError
from fastbts.files import atomic_write, check_writable

ALGORITHM = "ed25519"
CONTEXT = b"fastbts engine 1\n"
"""Prefix of what is signed, so that a signature made for another purpose is not valid here."""
NOT_IN_ABOUT = ("spec", "payloads", "signature")


def generate_keys(path: str | Path) -> Path:
    """Writes a new private key (PEM, readable by its owner only) and its public key `<path>.pub`.

    Returns:
        Path of the public key.
    Raises:
        OutputError: One of the two exists, or cannot be written.
        DeviceError: `cryptography` is not installed.
    """
    _, forms, ed25519 = _cryptography()
    private, public = Path(path), Path(f"{path}.pub")
    check_writable(private)
    if private.exists() or public.exists():
        raise OutputError(
            f"{private}: this key or its .pub exists; choose another name to keep the old key"
        )
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    pem = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    with atomic_write(public) as file:
        file.write(pem)
    return public


def sign_engine(engine: str | Path, key: str | Path, target: str | Path) -> None:
    """Writes an engine file with a signature, which replaces an earlier one.

    Args:
        engine: The engine file.
        key: Private key of `generate_keys`.
        target: The signed file; may be `engine`.
    Raises:
        EngineFileError: The engine is damaged.
        OptionsError: The key cannot be read.
        OutputError: The target cannot be written.
        DeviceError: `cryptography` is not installed.
    """
    _, forms, ed25519 = _cryptography()
    file = read_engine_file(engine)
    private = _key(
        key, partial(forms.load_pem_private_key, password=None), ed25519.Ed25519PrivateKey
    )
    about = {name: value for name, value in file.manifest.items() if name not in NOT_IN_ABOUT}
    signature = {"algorithm": ALGORITHM, "value": private.sign(_message(file.manifest)).hex()}
    content = pack_engine(file.spec, file.payloads, **about, signature=signature)
    with atomic_write(target) as output:
        output.write(content)


def check_signature(file: EngineFile, trusted_key: str | Path) -> None:
    """Checks that an engine file was signed with a key.

    Args:
        file: The engine file; the reader has checked its payloads.
        trusted_key: Public key of `generate_keys`.
    Raises:
        EngineFileError: It has no signature, or one of another key or content.
        OptionsError: The key cannot be read.
        DeviceError: `cryptography` is not installed.
    """
    invalid, forms, ed25519 = _cryptography()
    public = _key(trusted_key, forms.load_pem_public_key, ed25519.Ed25519PublicKey)
    signature = file.manifest.get("signature")
    if signature is None:
        raise EngineFileError(
            f"{file.path}: no signature, expected one by {trusted_key}; get a signed file"
        )
    try:
        if signature["algorithm"] != ALGORITHM:
            raise ValueError(f"algorithm {signature['algorithm']!r}")
        public.verify(bytes.fromhex(signature["value"]), _message(file.manifest))
    except (invalid, KeyError, TypeError, ValueError) as error:
        raise EngineFileError(
            f"{file.path}: its signature does not match {trusted_key} and this content; "
            "do not load it"
        ) from error


def _message(manifest: dict[str, Any]) -> bytes:
    """What is signed: the manifest, which has the payloads' SHA-256, without the signature."""
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    return CONTEXT + json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode("ascii")


def _key(path: str | Path, load: Any, kind: type) -> Any:
    try:
        key = load(Path(path).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise OptionsError(
            f"{path}: cannot be read as a key: {error}; create keys with: fastbts keygen"
        ) from error
    if not isinstance(key, kind):
        raise OptionsError(
            f"{path}: expected {kind.__name__}, got {type(key).__name__}; "
            "create keys with: fastbts keygen"
        )
    return key


def _cryptography() -> tuple[type[Exception], Any, Any]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise DeviceError(
            "signatures need cryptography; install it with: pip install 'fastbts[sign]'"
        ) from error
    return InvalidSignature, serialization, ed25519
