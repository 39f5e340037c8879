"""The bytes of a possibly malicious file, plain or gzip (RFC 1952): never more than asked for."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastbts.errors import InputError
from fastbts.formats.compression import fast_zlib

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # as in zlib.h: gzip header and trailer, largest window
FETCH_ANNEXED = "fetch it with `git annex get` or `datalad get`"
PIECE = 2**18  # bytes per read of the file: small enough for the cache
CONTENT_PIECE = 2**20  # bytes of content per step: each waits for the GIL if other threads have it


class ByteStream:
    """The bytes of a file as they are.

    Attributes:
        file_size: In bytes.
        packed: Whether the file is compressed.
        sha256: Of the file's bytes so far; of the complete file once `read` has returned nothing.
    """

    packed = False

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self.file_size, self.sha256 = os.fstat(file.fileno()).st_size, hashlib.sha256()

    def read(self, n: int) -> bytes:
        """Reads n bytes, or fewer at the end."""
        buffer = bytearray(n)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def read_into(self, view: memoryview) -> int:
        """Fills `view` as far as the content goes; returns the number of bytes."""
        done = 0
        while done < len(view) and (piece := self._piece(min(len(view) - done, CONTENT_PIECE))):
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def _piece(self, n: int) -> bytes:
        """Reads 1 to n bytes; none at the end only."""
        piece = self._file.read(n)
        self.sha256.update(piece)
        return piece


class GzipByteStream(ByteStream):
    """The decompressed bytes of a gzip file; isal or zlib checks CRC and length.

    Raises:
        InputError: While reading: the file is damaged, ends early, or has bytes after its end.
    """

    packed = True

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(path, file)
        self._ahead, self._unpack = b"", fast_zlib.decompressobj(GZIP_WINDOW)

    def _piece(self, n: int) -> bytes:
        piece = b""
        while not piece:
            if self._unpack.eof and not self._next_member():
                break
            self._ahead = self._ahead or super()._piece(PIECE)
            if not self._ahead:
                raise InputError(
                    f"{self.path}: truncated: the gzip stream ends early; copy or download the "
                    "file again"
                )
            try:
                piece = self._unpack.decompress(self._ahead, n)
            except fast_zlib.error as error:
                raise InputError(
                    f"{self.path}: damaged gzip stream ({error}); copy or download the file again"
                ) from error
            self._ahead = self._unpack.unconsumed_tail
        return piece

    def _next_member(self) -> bool:
        """Starts the next gzip member, if there is one (bgzip writes several)."""
        rest = self._unpack.unused_data
        while len(rest) < len(GZIP_MAGIC) and (more := super()._piece(PIECE)):
            rest += more
        if not rest:
            return False
        if not rest.startswith(GZIP_MAGIC):
            raise InputError(
                f"{self.path}: trailing bytes after the gzip stream; the file is damaged, copy or "
                "export it again"
            )
        self._ahead, self._unpack = rest, fast_zlib.decompressobj(GZIP_WINDOW)
        return True


@contextmanager
def open_byte_stream(path: Path) -> Iterator[ByteStream]:
    """Opens a regular file; its first bytes, not its name, say whether it is gzip.

    Raises:
        InputError: It is missing, unreadable, or a folder, pipe or device.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block forever
            raise InputError(
                f"{path}: is not a regular file; expected a .nii or .nii.gz file, got a folder, "
                "pipe or device; a folder of DICOM is read by `fastbts study FOLDER`"
            )
        with path.open("rb", buffering=0) as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            yield GzipByteStream(path, file) if packed else ByteStream(path, file)
    except InputError:  # a ValueError too, and complete
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{path}: cannot read: {_reason(path, error)}") from error


def _reason(path: Path, error: OSError | ValueError) -> str:
    """Why a path cannot be opened, and the way out."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        target = os.readlink(path)
        if "annex/objects" in Path(target).as_posix():
            return f"a git-annex link without its content; {FETCH_ANNEXED}"
        return f"a link to {target}, which does not exist; correct the link"
    reason = getattr(error, "strerror", None) or error
    return f"{reason}; check the path and its permissions"
