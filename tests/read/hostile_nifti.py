"""NIfTI files that a reader must refuse, and unusual ones that it must accept, made in code."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from fastbts import GeometryError, InputError

SHAPE = (5, 4, 3)
VOXELS = np.arange(60, dtype="<i2").reshape(SHAPE, order="F") - 7
CODES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
}


def nifti(
    voxels: np.ndarray = VOXELS,
    *,
    version: int = 1,
    order: str = "<",
    extension: bytes = b"\0\0\0\0",
    **fields: Any,
) -> bytes:
    """A complete NIfTI file: voxels on a 1 mm grid, and any header field set to any value."""
    make = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    header = make(endianness=order)
    dtype = np.dtype(voxels.dtype).newbyteorder(order)
    header["dim"][: 1 + voxels.ndim] = voxels.ndim, *voxels.shape
    header["datatype"], header["bitpix"] = CODES[dtype.str[1:]], 8 * dtype.itemsize
    header["magic"] = b"n+1" if version == 1 else b"n+2"
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.sizeof_hdr + len(extension)
    header["sform_code"], header["pixdim"][:4] = 1, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    for name, value in fields.items():
        header[name] = value
    return bytes(header.binaryblock) + extension + voxels.astype(dtype).tobytes(order="F")


def dim(*sizes: int) -> list[int]:
    """The `dim` field of these sizes."""
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def patched(content: bytes, place: int, *values: int) -> bytes:
    """The content with other bytes from `place` on."""
    return content[:place] + bytes(values) + content[place + len(values) :]


def bomb(gigabytes: int, header: bytes) -> bytes:
    """A gzip file of a header and gigabytes of zeros, a thousandth of that in size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    begin = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    # Z_FULL_FLUSH: the block does not depend on what precedes it, so it can be repeated.
    million = block.compress(bytes(10**6)) + block.flush(zlib.Z_FULL_FLUSH)
    return begin + million * (1000 * gigabytes)


@dataclass(frozen=True)
class Hostile:
    """A file to refuse: how to make it, and what the error must be and say."""

    name: str
    make: Callable[[], bytes]
    message: str
    error: type[Exception] = InputError


def _with(message: str, error: type[Exception] = InputError, **fields: Any) -> Hostile:
    name = "-".join(f"{key}={str(value)[:24]}" for key, value in fields.items())
    return Hostile(name, lambda: nifti(**fields), message, error)


def _pixdim(message: str, size: float, *, qform: bool) -> Hostile:
    """A wrong voxel size in a header whose place depends on it."""
    pixdim = [1, 1, size, 1, 0, 0, 0, 0]
    return _with(message, GeometryError, pixdim=pixdim, sform_code=0, qform_code=int(qform))


def _affine(name: str, affine: list[list[float]], message: str) -> Hostile:
    return Hostile(
        name,
        lambda: nifti(srow_x=affine[0], srow_y=affine[1], srow_z=affine[2]),
        message,
        GeometryError,
    )


GOOD = nifti()
PACKED = gzip.compress(GOOD, mtime=0)
NIFTI2 = nifti(version=2)
BIG = 2**62

HEADERS = [
    Hostile("empty", lambda: b"", "an empty file"),
    Hostile("three bytes", lambda: GOOD[:3], "truncated: expected 348 bytes of header, got 3"),
    Hostile(
        "half a header", lambda: GOOD[:200], "truncated: expected 348 bytes of header, got 200"
    ),
    Hostile(
        "half a NIfTI-2 header",
        lambda: NIFTI2[:400],
        "truncated: expected 540 bytes of header, got 400",
    ),
    Hostile("header only", lambda: GOOD[:348], "truncated: expected a file of 472 bytes, got 348"),
    Hostile("sizeof_hdr", lambda: patched(GOOD, 0, 0x5B), "expected a NIfTI image"),
    Hostile("magic", lambda: patched(GOOD, 344, *b"n+9"), "single-file NIfTI header"),
    Hostile("pair", lambda: patched(GOOD, 344, *b"ni1"), "magic b'ni1.*convert it to .nii.gz"),
    Hostile("ANALYZE", lambda: patched(GOOD, 344, 0, 0, 0, 0), "ANALYZE"),
    Hostile(
        "NIfTI-2 after a text-mode copy",
        lambda: patched(NIFTI2, 8, 10, 10, 26),
        "expected a NIfTI image",
    ),
    _with("expected a 3-D image, got 0 axes", dim=dim()),
    _with("expected a 3-D image, got 2 axes", dim=dim(20, 3)),
    _with("expected a 3-D image, got 8 axes", dim=[8, 5, 4, 3, 1, 1, 1, 1]),
    _with("expected a 3-D image, got -3 axes", dim=[-3, 5, 4, 3, 1, 1, 1, 1]),
    _with("expected positive sizes, got .5, 0, 3", dim=dim(5, 0, 3)),
    _with("expected positive sizes, got .5, -4, -3", dim=dim(5, -4, -3)),
    _with(
        "a single slice cannot be segmented",
        GeometryError,
        voxels=VOXELS.reshape((20, 3, 1), order="F"),
    ),
    _with(
        "expected one 3-D volume, got shape .5, 2, 2, 3",
        voxels=VOXELS.reshape((5, 2, 2, 3), order="F"),
    ),
    _with("expected one 3-D volume", voxels=VOXELS.reshape((5, 2, 2, 1, 3), order="F")),
    _with("too large: expected at most 134217728 voxels", dim=dim(30000, 30000, 30000)),
    _with("too large", version=2, dim=dim(BIG, BIG, BIG)),
    _with("too large", version=2, dim=dim(2**32, 2**32, 1)),
    _with("truncated: expected a file of 16000352 bytes, got 472", dim=dim(200, 200, 200)),
    _with(r"datatype 32 \(complex64\)", datatype=32, bitpix=64),
    _with(r"datatype 128 \(RGB\)", datatype=128, bitpix=24),
    _with(r"datatype 2304 \(RGBA\)", datatype=2304, bitpix=32),
    _with(r"datatype 1536 \(float128\)", datatype=1536, bitpix=128),
    _with(r"datatype 1 \(1-bit\)", datatype=1, bitpix=1),
    _with(r"datatype 77 \(an unknown one\)", datatype=77),
    _with("expected bitpix 16 for datatype 4, got 8", bitpix=8),
    _with("expected vox_offset 352 to 16777216, got 0", vox_offset=0),
    _with("vox_offset", vox_offset=348),
    _with("vox_offset", vox_offset=352.5),
    _with("vox_offset", vox_offset=np.nan),
    _with("vox_offset", vox_offset=np.inf),
    _with("vox_offset", vox_offset=-352),
    _with("vox_offset", vox_offset=4e9),
    _with("truncated", vox_offset=368),
    _with("expected vox_offset 544", version=2, vox_offset=352),
    _with("finite scl_slope and scl_inter, got inf", scl_slope=np.inf),
    _with("finite scl_slope and scl_inter, got 2 and nan", scl_slope=2, scl_inter=np.nan),
    _pixdim(r"pixdim\) of 0\.1-20\.0 mm", 0, qform=False),
    _pixdim("the qform is unusable: expected voxel sizes", 0, qform=True),
    _pixdim("pixdim", -1, qform=True),
    _pixdim("pixdim", -1, qform=False),
    _pixdim("pixdim", np.nan, qform=True),
    _pixdim("check the header's units", 1000, qform=False),
    _with(
        "sform is unusable: spacing .* the qform is unusable: its quaternion is not a rotation",
        GeometryError,
        srow_x=0,
        qform_code=1,
        quatern_b=9,
    ),
    _with(
        "qform is unusable: its quaternion is not a rotation",
        GeometryError,
        sform_code=0,
        qform_code=1,
        quatern_b=1,
        quatern_c=1,
    ),
    _with(
        "qform is unusable: it is not finite",
        GeometryError,
        sform_code=0,
        qform_code=1,
        qoffset_x=np.inf,
    ),
    _affine("affine with NaN", [[1, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0]], "finite 4x4"),
    _affine("affine with infinity", [[np.inf, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "finite 4x4"),
    _affine("affine of zeros", [[0] * 4] * 3, "spacing"),
    _affine("singular affine", [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], "not perpendicular"),
    _affine("sheared affine", [[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "not perpendicular"),
    _affine("affine in metres", [[1e-3, 0, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1e-3, 0]], "spacing"),
    _affine(
        "affine beyond float32 squared", [[1e30, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "spacing"
    ),
]

STREAMS = [
    Hostile("plain, cut", lambda: GOOD[:-1], "truncated: expected a file of 472 bytes, got 471"),
    Hostile(
        "plain, bytes after",
        lambda: GOOD + b"\0",
        "trailing bytes: expected a file of 472 bytes, got 473",
    ),
    Hostile(
        "gzip, cut in the middle",
        lambda: PACKED[: len(PACKED) // 2],
        "truncated: the gzip stream ends early",
    ),
    Hostile(
        "gzip, cut in its trailer", lambda: PACKED[:-4], "truncated: the gzip stream ends early"
    ),
    Hostile("gzip, ten bytes", lambda: PACKED[:10], "truncated: the gzip stream ends early"),
    Hostile(
        "gzip of a cut image",
        lambda: gzip.compress(GOOD[:-8]),
        "truncated: expected 120 bytes of voxels, got 112",
    ),
    Hostile(
        "gzip of a longer image",
        lambda: gzip.compress(GOOD + b"\0"),
        "trailing bytes: expected 120 bytes of voxels",
    ),
    Hostile(
        "gzip, wrong CRC",
        lambda: patched(PACKED, len(PACKED) - 8, PACKED[-8] ^ 1),
        r"damaged gzip stream \(.*ncorrect (data check|checksum)",
    ),
    Hostile(
        "gzip, wrong length",
        lambda: patched(PACKED, len(PACKED) - 4, PACKED[-4] ^ 1),
        r"damaged gzip stream \(.*ncorrect (length check|checksum)",
    ),
    Hostile(
        "gzip, reserved method",
        lambda: patched(PACKED, 2, 7),
        r"damaged gzip stream \(.*(unknown|unsupported) compress",
    ),
    Hostile("gzip, bytes after", lambda: PACKED + b"\0\0", "trailing bytes after the gzip stream"),
    Hostile(
        "gzip, one byte after", lambda: PACKED + b"\x1f", "trailing bytes after the gzip stream"
    ),
    Hostile("gzip, another image after", lambda: PACKED + PACKED, "trailing bytes: expected 120"),
    Hostile(
        "gzip inside gzip", lambda: gzip.compress(PACKED), "gzip inside gzip; decompress it once"
    ),
    Hostile(
        "header that no gzip could fulfil",
        lambda: gzip.compress(nifti(dim=dim(500, 500, 500))),
        "which a gzip file of .* cannot",
    ),
    Hostile("HTML", lambda: b"\n<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
    Hostile("HTML in gzip", lambda: gzip.compress(b"<html>404</html>" * 99), "an HTML or XML page"),
    Hostile(
        "Git LFS pointer",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid",
        "run `git lfs pull`",
    ),
    Hostile(
        "git-annex pointer",
        lambda: b"/annex/objects/MD5E-s234--0123.nii.gz\n",
        "git-annex pointer .* `git annex get` or `datalad get`",
    ),
    Hostile("zip", lambda: b"PK\3\4" + bytes(400), "a zip archive"),
    Hostile("DICOM", lambda: bytes(128) + b"DICM" + bytes(400), "DICOM"),
    Hostile("NRRD", lambda: b"NRRD0004\ntype: short\n", "NRRD"),
    Hostile("text", lambda: b"not an image at all", "begins with b'not an i'"),
]

CONTENTS = [
    Hostile("NaN", lambda: nifti(np.nan * VOXELS.astype("<f4")), "60 voxels are NaN or infinite"),
    Hostile(
        "infinite once scaled",
        lambda: nifti(1000 * VOXELS.astype("<f4"), scl_slope=-3e38),
        "all voxels are -?0, except for 59 NaN or infinite ones",
    ),
    Hostile("zeros", lambda: nifti(0 * VOXELS), "all voxels are 0"),
    Hostile("constant", lambda: nifti(0 * VOXELS + 9), "all voxels are 9"),
]

HOSTILE = [*HEADERS, *STREAMS, *CONTENTS]


def gzip_with_name(content: bytes) -> bytes:
    """A gzip file with name, time and comment in its header."""
    body = gzip.compress(content)[10:]
    return (
        b"\x1f\x8b\x08\x18"
        + struct.pack("<IBB", 1_600_000_000, 0, 3)
        + b"patient.nii\0comment\0"
        + body
    )


def bgzip(content: bytes) -> bytes:
    """The content in several gzip members, the last one empty."""
    return b"".join(gzip.compress(content[at : at + 50]) for at in range(0, len(content) + 50, 50))
