"""The fields of a NIfTI header, each checked; and what a file that is not NIfTI may be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.errors import InputError
from fastbts.formats.nifti_header import Endianness, NiftiHeader
from fastbts.read.byte_stream import FETCH_ANNEXED

ORDER_OPTION = "--channels flair,t1,t1ce,t2, predict(path, order=('flair', 't1', 't1ce', 't2'))"
MAX_VOXELS = 2**27  # 512 x 512 x 512: beyond any brain MRI, and at most 1 GiB in memory
MAX_OFFSET = 2**24  # bytes of header extensions
MAX_DEFLATE_RATIO = 1032  # deflate cannot expand more (zlib's technical details)

DTYPES = {
    2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 1024: "i8", 1280: "u8",
    16: "f4", 64: "f8",
}  # fmt: skip
REFUSED_DTYPES = {
    1: "1-bit", 128: "RGB", 2304: "RGBA", 1536: "float128",
    32: "complex64", 1792: "complex128", 2048: "complex256",
}  # fmt: skip
MAGICS = {348: (344, b"n+1\0", b"ni1\0"), 540: (4, b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
"""Size of the header (NIfTI-1, NIfTI-2) -> offset of its magic, that of a single file, that of a
.hdr/.img pair."""
FOREIGN = {
    b"\x1f\x8b": "gzip inside gzip; decompress it once",
    b"<": "an HTML or XML page, perhaps a failed download; fetch the image again",
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull`",
    b"/annex/objects/": f"a git-annex pointer without its content; {FETCH_ANNEXED}",
    b"PK\3\4": "a zip archive; unpack it",
    b"NRRD": "NRRD; convert it to NIfTI",
}


def parsed(path: Path, first: bytes) -> NiftiHeader:
    """Makes a header of a file's first bytes."""
    orders: tuple[Endianness, Endianness] = ("<", ">")
    for endianness in orders:
        size = int(np.frombuffer(first[:4].ljust(4, b"\0"), f"{endianness}i4")[0])
        if size not in MAGICS:
            continue
        place, single, pair = MAGICS[size]
        magic = first[place : place + len(single)]
        if len(first) < size:
            raise InputError(
                f"{path}: truncated: expected {size} bytes of header, got {len(first)}; "
                "copy the file again"
            )
        if magic == single:
            return NiftiHeader(first[:size], endianness)
        if magic == pair or size == 348:
            raise InputError(
                f"{path}: expected a single-file NIfTI header, got magic {magic!r} of an ANALYZE "
                "or .hdr/.img header, or a damaged one; convert it to .nii.gz"
            )
    raise InputError(f"{path}: expected a NIfTI image, got {_description(first)}")


def _description(first: bytes) -> str:
    """What a file that is not NIfTI may be."""
    if not first:
        return "an empty file; copy or download it again"
    if first[128:132] == b"DICM":
        return "DICOM; segment its folder by `fastbts study FOLDER` (fastbts.read_study)"
    for magic, description in FOREIGN.items():
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            return description
    return f"a file that begins with {first[:8]!r}; convert it to NIfTI"


def shape_of(path: Path, header: NiftiHeader, n_images: int = 1) -> tuple[int, int, int]:
    """The grid's size, of a file that should hold so many images."""
    n, *sizes = (int(size) for size in header["dim"])
    sizes = sizes[: max(n, 0)]
    if not 3 <= n <= 7:
        raise InputError(
            f"{path}: expected a 3-D image, got {n} axes; a single slice cannot be segmented"
        )
    if min(sizes) < 1:
        raise InputError(
            f"{path}: expected positive sizes, got {tuple(sizes)}; the header is damaged, export "
            "the image again"
        )
    if math.prod(sizes[:3]) > MAX_VOXELS:
        raise InputError(
            f"{path}: shape {tuple(sizes)} is too large: expected at most {MAX_VOXELS} voxels; "
            "resample the image"
        )
    if math.prod(sizes[3:]) != n_images:
        expected = "one 3-D volume" if n_images == 1 else f"a 4-D file of {n_images} volumes"
        raise InputError(
            f"{path}: expected {expected}, got shape {tuple(sizes)}; a file that holds all images "
            f"of a case needs their order: {ORDER_OPTION}; of a time series choose one volume"
        )
    return sizes[0], sizes[1], sizes[2]


def stored_dtype(path: Path, header: NiftiHeader) -> np.dtype[Any]:
    """The dtype in the file, with byte order."""
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in DTYPES:
        got = REFUSED_DTYPES.get(code, "an unknown one")
        raise InputError(
            f"{path}: expected integers or floats up to 64 bits, got datatype {code} ({got}); take "
            "the magnitude or one channel and save it as int16 or float32"
        )
    dtype = np.dtype(DTYPES[code]).newbyteorder(header.endianness)
    if bits != 8 * dtype.itemsize:
        raise InputError(
            f"{path}: expected bitpix {8 * dtype.itemsize} for datatype {code}, got {bits}; export "
            "the image again"
        )
    return dtype


def offset_of(path: Path, header: NiftiHeader) -> int:
    """The first byte of the voxels."""
    offset, least = float(header["vox_offset"]), int(header.sizeof_hdr) + 4
    if not (least <= offset <= MAX_OFFSET and offset == int(offset)):
        raise InputError(
            f"{path}: expected vox_offset {least} to {MAX_OFFSET}, got {offset:g}; export the "
            "image again"
        )
    return int(offset)


def check_size(path: Path, size: int, expected: int, *, packed: bool) -> None:
    """Compares the file's size with what the header promises, before anything is allocated."""
    if packed and size * MAX_DEFLATE_RATIO < expected:
        raise InputError(
            f"{path}: truncated, or the header is wrong: expected {expected} bytes of image, which "
            f"a gzip file of {size} bytes cannot hold; copy or download the file again"
        )
    if not packed and size != expected:
        what = "truncated" if size < expected else "trailing bytes"
        raise InputError(
            f"{path}: {what}: expected a file of {expected} bytes, got {size}; copy or export the "
            "file again"
        )


def scaling_of(path: Path, header: NiftiHeader) -> tuple[float, float]:
    """Slope and intercept to apply: (1, 0) where the stored values suffice.

    Every modality is normalised on its own, so a positive factor changes nothing, and without an
    intercept the background stays 0: the integers in the file work as well, and are smaller.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # nifti1.h: 0 is unscaled; nibabel writes NaN
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise InputError(
            f"{path}: expected finite scl_slope and scl_inter, got {slope:g} and {inter:g}; export "
            "the image again"
        )
    return (1.0, 0.0) if slope > 0 and inter == 0 else (slope, inter)
