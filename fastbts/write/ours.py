"""Tells files that fastbts wrote from those of others, which it does not overwrite."""

from __future__ import annotations

import json
import struct
import zlib
from functools import partial
from gzip import GzipFile
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from fastbts.errors import InputError
from fastbts.formats.compression import fast_zlib, open_gzip

COMMENT_CODE = 6  # NIfTI extension of plain text, nifti1.h "NIFTI_ECODE_COMMENT"
SOFTWARE = "fastbts"
"""Begins the value of the PNG keyword "Software" in our pictures."""
COMPARISON, SCORES = "comparison", "scores"
"""Kinds of the JSON that `fastbts compare` and `fastbts evaluate` write."""
TABLE_SUFFIX = ".tsv"
"""Of a table beside a result, whose report has the same name before the suffix."""
SCORES_HEAD = b"case,region,dice,"
"""Begins the CSV that `fastbts evaluate` writes."""
GENERATOR = f"{SOFTWARE} "
"""Begins what our HTML pages say about the program that made them, in their first lines."""
MAX_TEXT_BYTES = 1 << 20  # of a report, and of a comment in an image
MAX_TABLE_BYTES = 1 << 28
PNG, GZIP, NRRD = b"\x89PNG\r\n\x1a\n", b"\x1f\x8b", b"NRRD"
DICOM = b"DICM"  # after a preamble of 128 bytes
NRRD_CRC = "fastbts_voxels_crc32"
"""Field of our `.seg.nrrd`: CRC-32 of the voxels before compression."""
# Manufacturer (0008,0070) of DICOM, explicit little endian, before any pixels.
_MANUFACTURER = b"\x08\x00\x70\x00LO\x08\x00" + SOFTWARE.encode().ljust(8)
MAX_HEADER_BYTES = 1 << 16
UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, struct.error, zlib.error, fast_zlib.error),
)
"""What reading a file raises that has other content than ours."""


def is_ours(path: Path) -> bool:
    """Whether fastbts wrote this file: image, report, preview, page, table of scores or DICOM
    object, by its content.

    An image whose voxels were changed afterwards is no longer ours.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(len(PNG))
            file.seek(0)
            if start == PNG:
                return f"Software\0{SOFTWARE} ".encode() in file.read(1024)
            if start.startswith(b"<!"):
                return f'<meta name="generator" content="{GENERATOR}'.encode() in file.read(1024)
            if path.suffix == TABLE_SUFFIX:
                return is_unchanged(path, listed_files(path.with_suffix(".json")).get(path.name))
            if start.startswith(b"{"):
                return bool(listed_files(path)) or _is_table(path)
            if SCORES_HEAD.startswith(start):
                return file.read(len(SCORES_HEAD)) == SCORES_HEAD
            if start.startswith(NRRD):
                return _is_our_nrrd(file)
            if file.read(132)[128:] == DICOM:
                return _MANUFACTURER in file.read(MAX_HEADER_BYTES)
            file.seek(0)
            return _is_our_image(open_gzip(file) if start.startswith(GZIP) else file)
    except UNREADABLE:
        return False


def read_report(path: Path) -> dict[str, Any]:
    """The content of a report, which lists files of its own folder only.

    Raises:
        One of UNREADABLE: It has other content.
    """
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path.stat().st_size} bytes, at most {MAX_TEXT_BYTES} are read")
    report: dict[str, Any] = json.loads(path.read_bytes())
    for name, _ in report["files_sha256"].items():
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"lists the file {name!r}, which is not in the report's folder")
    return report


def own_report(path: Path) -> dict[str, Any] | None:
    """The report of a result; None if there is none of ours."""
    try:
        report = read_report(path)
        return report if report["software"][SOFTWARE] and report["files_sha256"] else None
    except UNREADABLE:
        return None


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def is_unchanged(path: Path, digest: str | None) -> bool:
    """Whether a file is there with the sha256 that its report says."""
    try:
        return path.is_file() and digest_of(path) == digest
    except OSError:
        return False


def listed_files(report: Path) -> dict[str, str]:
    """Name of each file in the report's folder that it lists -> sha256; empty if not ours."""
    content = own_report(report)
    return content["files_sha256"] if content else {}


def _is_table(path: Path) -> bool:
    """Whether this is what `compare --json` or `evaluate --json` writes."""
    with path.open("rb") as file:
        content = json.loads(file.read(MAX_TABLE_BYTES))
    return bool(content["software"][SOFTWARE]) and content["kind"] in (COMPARISON, SCORES)


def _is_our_image(file: BinaryIO | GzipFile) -> bool:
    """Reads what `write_labels` writes: header, 4 bytes, one comment, and voxels to the end."""
    size = struct.unpack("=i", file.read(4))[0]
    file.read(size if size in (348, 540) else 0)
    length, code = struct.unpack("=ii", file.read(8))
    if code != COMMENT_CODE or not 8 < length <= MAX_TEXT_BYTES:
        return False
    comment: dict[str, Any] = json.loads(file.read(length - 8).rstrip(b"\0"))
    is_named = bool(comment["provenance"]["software"][SOFTWARE])
    return is_named and comment["voxels_crc32"] == _crc(file)


def _is_our_nrrd(file: BinaryIO) -> bool:
    """Compares the voxels, packed by gzip after an empty line, with their CRC-32 in the header."""
    header = file.read(MAX_HEADER_BYTES).partition(b"\n\n")[0]
    lines = header.decode("ascii", "replace").splitlines()
    stated = [line.removeprefix(f"{NRRD_CRC}:=") for line in lines if line.startswith(NRRD_CRC)]
    file.seek(len(header) + 2)
    return bool(stated) and int(stated[0]) == _crc(open_gzip(file))


def _crc(file: BinaryIO | GzipFile) -> int:
    """CRC-32 of what is left of a file."""
    crc = 0
    for chunk in iter(partial(file.read, 1 << 20), b""):
        crc = fast_zlib.crc32(chunk, crc)
    return crc
