"""Compiled networks on disk, so that a new process need not compile them again.

A compiled network is code: whoever can write it decides what runs. So its folder must be one that
only this user can write, see `opened_folder`; else there is no cache, and no error. A checksum
finds damaged files; it is no signature.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from mmap import ACCESS_COPY, mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import FastBTSError
from fastbts.formats.compression import fast_zlib

VARIABLE = "FASTBTS_CACHE"
"""Environment variable: another folder, or "off"."""
SUFFIX, TEMPORARY = ".compiled", ".tmp"
MAX_BYTES = 2**28
"""Of all files together: about ten networks. The files used longest ago are removed first."""
ABANDONED_S = 3600.0
"""Age of a temporary file whose process is no longer writing it."""
DIGEST = hashlib.sha256().digest_size


class NoCacheError(FastBTSError):
    """There is no folder for compiled networks; says why, and how to get one."""


def load(key: str) -> NDArray[np.uint8] | None:
    """The compiled network that was stored under a key; None where there is none, or no cache.

    It is the file mapped into memory: not copied, and intact if the file is replaced or removed.
    """
    with suppress(NoCacheError, OSError, ValueError), opened_folder() as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(_name(key), flags, dir_fd=folder), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not _is_ours(file.fileno(), stat.S_ISREG) or not DIGEST < size <= MAX_BYTES:
                return None
            # A private copy on write, as OpenVINO's tensors take no read-only memory.
            content = np.frombuffer(mmap(file.fileno(), size, access=ACCESS_COPY), np.uint8)
            blob, digest = content[:-DIGEST], content[-DIGEST:]
            if _digest(key, blob.data) == digest.tobytes():
                os.utime(file.fileno())  # the time of the last use
                return blob
    return None


def store(key: str, export: Callable[[], bytes | memoryview]) -> None:
    """Stores what `export` returns; removes old files. Does nothing where there is no cache."""
    with suppress(NoCacheError, OSError), opened_folder() as folder:
        blob = memoryview(export())
        if len(blob) > MAX_BYTES // 2:
            return
        _write(folder, _name(key), key, blob)
        _prune(folder)


def describe() -> str:
    """Where the cache is and what it holds, in one line for `fastbts doctor`.

    Raises:
        NoCacheError: See `opened_folder`.
    """
    with opened_folder() as folder:
        sizes = [status.st_size for status, name in _files(folder) if name.endswith(SUFFIX)]
        return f"{cache_folder()}: {len(sizes)} networks, {sum(sizes) / 1e6:.0f} MB"


def cache_folder() -> Path:
    """Where compiled networks are; it need not exist yet.

    Raises:
        NoCacheError: It is switched off, or this system has no home or no owners of files.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in ("off", "0"):
        raise NoCacheError(f"off: {VARIABLE}={wanted}")
    if not hasattr(os, "geteuid"):
        raise NoCacheError("off: on this system fastbts cannot see who may write a folder")
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(wanted or Path(base if os.path.isabs(base) else "~/.cache") / "fastbts")
    with suppress(RuntimeError):  # no home
        folder = folder.expanduser()
    if not folder.is_absolute():
        raise NoCacheError(f"off: {folder} is no absolute path; set {VARIABLE} to a folder")
    return folder


@contextmanager
def opened_folder() -> Iterator[int]:
    """Opens the folder, made if need be: a file descriptor, so that nobody can exchange it.

    Raises:
        NoCacheError: See `cache_folder`; or the folder is a link, of another user, or open to
            others, or it cannot be made.
    """
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise NoCacheError(
            f"off: {folder}: {reason}; expected a folder, not a link; set {VARIABLE} to another one"
        ) from error
    try:
        if not _is_ours(fd, stat.S_ISDIR):
            raise NoCacheError(
                f"off: {folder}: others may write it or own it; expected a folder of this user "
                f"alone (chmod 700); or set {VARIABLE} to another one"
            )
        yield fd
    finally:
        os.close(fd)


def _is_ours(fd: int, is_kind: Callable[[int], bool]) -> bool:
    """Whether an open file is of a kind, of this user, and closed to all others."""
    status = os.fstat(fd)
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return private and is_kind(status.st_mode)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() + SUFFIX


def _digest(key: str, blob: bytes | memoryview) -> bytes:
    """With the key, so that a renamed file is noticed.

    CRC-32 finds damage, and takes a tenth of the time of SHA-256 over the content.
    """
    return hashlib.sha256(f"{fast_zlib.crc32(blob):08x} {key}".encode()).digest()


def _write(folder: int, name: str, key: str, blob: memoryview) -> None:
    """Writes a file that appears complete; after a crash the digest tells whether it is."""
    temporary = os.urandom(8).hex() + TEMPORARY
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with (
            ThreadPoolExecutor(1) as pool,
            os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file,
        ):
            digest = pool.submit(_digest, key, blob)
            file.write(blob)
            file.write(digest.result())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:  # a full disk
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _prune(folder: int) -> None:
    """Removes the files used longest ago beyond `MAX_BYTES`, and what killed processes left."""
    now, total = time.time(), 0
    for status, name in sorted(_files(folder), key=lambda file: -file[0].st_mtime):
        total += status.st_size if name.endswith(SUFFIX) else 0
        abandoned = name.endswith(TEMPORARY) and now - status.st_mtime > ABANDONED_S
        if abandoned or (name.endswith(SUFFIX) and total > MAX_BYTES):
            with suppress(FileNotFoundError):  # another process was faster
                os.unlink(name, dir_fd=folder)


def _files(folder: int) -> Iterator[tuple[os.stat_result, str]]:
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process removed it
            yield entry.stat(follow_symlinks=False), entry.name
