"""Reads NIfTI images that may be damaged or malicious.

The header is checked before memory is allocated, the voxels while they are read. Format: NIfTI-1
(nifti1.h, https://nifti.nimh.nih.gov/nifti-1) and NIfTI-2, single files, plain or gzip (RFC 1952).
nibabel interprets the header; it does not read the voxels, as it silently accepts damaged files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError, InputError
from fastbts.read.byte_stream import open_byte_stream
from fastbts.volume import MAX_SPACING_MM, MIN_SPACING_MM, Geometry

MAX_VOXELS = 2**27  # 512 x 512 x 512: beyond any brain MRI, and at most 1 GiB in memory
MAX_OFFSET = 2**24  # bytes of header extensions
MAX_DEFLATE_RATIO = 1032  # deflate cannot expand more (zlib's technical details)
# Quaternions in float32 are off by about a tenth of a voxel at the corner of a large image.
FORMS_APART_VOXELS = 0.5

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
    b"PK\3\4": "a zip archive; unpack it",
    b"NRRD": "NRRD; convert it to NIfTI",
}


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What a file says about its image, checked as far as it can be without the voxels.

    Attributes:
        path: The file.
        geometry: Its voxel grid.
        stored: dtype in the file, with byte order.
        slope: 1 where values are used as stored, see `_scaling`.
        inter: 0 likewise.
        offset: First byte of the voxels, after decompression.
        nifti: nibabel Nifti1Header or Nifti2Header.
        warnings: What is unusual but not wrong. They do not contain the path.
    """

    path: Path
    geometry: Geometry
    stored: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    nifti: Any = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def as_stored(self) -> bool:
        """Whether the values are used without scaling."""
        return self.slope == 1 and self.inter == 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype once read: the stored one in native byte order, or float32 if scaled."""
        return self.stored.newbyteorder("=") if self.as_stored else np.dtype(np.float32)

    @property
    def n_bytes(self) -> int:
        """Size of the voxels in the file, after decompression."""
        return math.prod(self.geometry.shape) * self.stored.itemsize


@dataclass(frozen=True, eq=False)
class Image:
    """One image as stored.

    Attributes:
        data: (i, j, k), first axis fastest in memory, native byte order, not constant.
            Not scaled where the header has a positive slope and no intercept, see `_scaling`.
        geometry: Its voxel grid.
        path: The file.
        header: nibabel Nifti1Header or Nifti2Header.
        warnings: What is unusual but not wrong. They do not contain the path.
        sha256: Of the file's bytes.
    """

    data: NDArray[Any]
    geometry: Geometry
    path: Path
    header: Any = field(repr=False)
    warnings: tuple[str, ...] = ()
    sha256: str = ""


def read_image(path: str | Path) -> Image:
    """Reads a `.nii` or `.nii.gz` file; its content, not its name, says which of the two it is.

    Raises:
        InputError: The file is missing, unreadable, damaged, not NIfTI, too large, of an unusable
            dtype, 4-D with several volumes, constant.
        GeometryError: Its voxel grid cannot be used, see `Geometry`.
    """
    return image_of(read_header(path))


def image_of(header: ImageHeader) -> Image:
    """Reads the image of a header; see `read_image` for the errors."""
    data = np.empty(header.geometry.shape[::-1], header.dtype).T
    return Image(
        data, header.geometry, header.path, header.nifti, header.warnings, read_voxels(header, data)
    )


def read_header(path: str | Path) -> ImageHeader:
    """Reads and checks the header only; see `read_image` for the errors."""
    path = Path(path)
    with open_byte_stream(path) as stream:
        first = stream.read(max(MAGICS))
    header = _parsed(path, first)
    shape, stored, offset = _shape(path, header), _stored_dtype(path, header), _offset(path, header)
    _check_size(
        path, stream.file_size, offset + math.prod(shape) * stored.itemsize, packed=stream.packed
    )
    slope, inter = _scaling(path, header)
    geometry, warnings = _geometry(path, header, shape)
    return ImageHeader(path, geometry, stored, slope, inter, offset, header, warnings)


def read_voxels(header: ImageHeader, out: NDArray[Any], *, labels: bool = False) -> str:
    """Reads the voxels into `out` and checks them; releases the GIL while it decompresses.

    Args:
        header: From `read_header`.
        out: (i, j, k), first axis fastest; preferably of `header.dtype`, so that nothing is copied.
        labels: Whether these are labels, which may all be equal, and must be finite. In an image,
            NaN or infinity may be background; `fastbts.pipeline.brain` finds out.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: See `read_image`. The content of `out` is then undefined.
    """
    direct = header.as_stored and out.dtype == header.dtype and out.flags.f_contiguous
    raw = out if direct else np.empty(out.shape[::-1], header.stored).T
    sha256 = _read_raw(header, raw)
    if direct and not header.stored.isnative:
        out.byteswap(inplace=True)
    elif not direct:
        # What is not finite afterwards is no intensity; see `labels`.
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = raw if header.as_stored else _scaled(raw, header)
    _check_content(header.path, out, labels)
    return sha256


def _read_raw(header: ImageHeader, raw: NDArray[Any]) -> str:
    """Reads the voxels' bytes, which must be all that follows the header; returns the SHA-256."""
    with open_byte_stream(header.path) as stream:
        stream.read(header.offset)
        n = stream.read_into(raw.T.reshape(-1).view(np.uint8).data)
        if n < header.n_bytes:
            raise InputError(
                f"{header.path}: truncated: expected {header.n_bytes} bytes of voxels, got {n}; "
                "copy or download the file again"
            )
        if stream.read(1):
            raise InputError(
                f"{header.path}: trailing bytes: expected {header.n_bytes} bytes of voxels after "
                f"{header.offset} of header, got more; the header or the file is damaged, export "
                "it again"
            )
        return stream.sha256.hexdigest()


def _parsed(path: Path, first: bytes) -> Any:
    """Makes a nibabel header of the first bytes."""
    import nibabel as nib

    for endianness in ("<", ">"):
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
            make = nib.Nifti1Header if size == 348 else nib.Nifti2Header
            return make(first[:size], endianness, check=False)
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
        return "DICOM; convert the series to NIfTI, for example with dcm2niix"
    for magic, description in FOREIGN.items():
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            return description
    return f"a file that begins with {first[:8]!r}; convert it to NIfTI"


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
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
    if math.prod(sizes[3:]) > 1:
        raise InputError(
            f"{path}: expected one 3-D volume, got shape {tuple(sizes)}; split it and choose one "
            "volume"
        )
    if math.prod(sizes) > MAX_VOXELS:
        raise InputError(
            f"{path}: shape {tuple(sizes)} is too large: expected at most {MAX_VOXELS} voxels; "
            "resample the image"
        )
    return sizes[0], sizes[1], sizes[2]


def _stored_dtype(path: Path, header: Any) -> np.dtype[Any]:
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


def _offset(path: Path, header: Any) -> int:
    offset, least = float(header["vox_offset"]), int(header.sizeof_hdr) + 4
    if not (least <= offset <= MAX_OFFSET and offset == int(offset)):
        raise InputError(
            f"{path}: expected vox_offset {least} to {MAX_OFFSET}, got {offset:g}; export the "
            "image again"
        )
    return int(offset)


def _check_size(path: Path, size: int, expected: int, *, packed: bool) -> None:
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


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Slope and intercept to apply: (1, 0) where the stored values suffice.

    Every modality is normalised on its own, so a positive factor changes nothing, and without an
    intercept the background stays 0: the integers in the file work as well, and are smaller.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # nifti1.h: 0 is unscaled; nibabel's headers have NaN
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise InputError(
            f"{path}: expected finite scl_slope and scl_inter, got {slope:g} and {inter:g}; export "
            "the image again"
        )
    return (1.0, 0.0) if slope > 0 and inter == 0 else (slope, inter)


def _scaled(raw: NDArray[Any], header: ImageHeader) -> NDArray[np.float32]:
    data = raw * np.float64(header.slope) + header.inter
    # The header's float32 slope and intercept seldom cancel, but the background must be exactly 0.
    data[np.abs(data) <= 2 * np.finfo(np.float32).eps * abs(header.inter)] = 0
    return data.astype(np.float32)


def _geometry(
    path: Path, header: Any, shape: tuple[int, int, int]
) -> tuple[Geometry, tuple[str, ...]]:
    """The grid by sform, else qform, else voxel sizes alone; and warnings about it."""
    spacing = header["pixdim"][1:4]
    if not ((spacing >= MIN_SPACING_MM) & (spacing <= MAX_SPACING_MM)).all():
        raise GeometryError(
            f"{path}: expected voxel sizes (pixdim) of {MIN_SPACING_MM}-{MAX_SPACING_MM} mm, got "
            f"{spacing}; check the header's units"
        )
    if header["pixdim"][0] not in (-1, 1):  # nifti1.h: any other qfac counts as 1
        header["pixdim"][0] = 1
    sform = header.get_sform() if header["sform_code"] > 0 else None
    qform, problem = _qform(header) if header["qform_code"] > 0 else (None, None)
    if sform is None and problem:
        raise GeometryError(f"{path}: the qform is unusable: {problem}; export the image again")
    affine = next(form for form in (sform, qform, header.get_base_affine()) if form is not None)
    try:
        geometry = Geometry(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    if problem:
        return geometry, (f"the qform is unusable ({problem}): the sform was used",)
    return geometry, _form_warnings(sform, qform, shape)


def _qform(header: Any) -> tuple[NDArray[np.float64] | None, str | None]:
    """The qform, or what is wrong with it."""
    try:
        qform = header.get_qform()
    except ValueError:
        return None, "its quaternion is not a rotation"
    return (qform, None) if np.isfinite(qform).all() else (None, "it is not finite")


def _form_warnings(
    sform: NDArray[Any] | None, qform: NDArray[Any] | None, shape: tuple[int, int, int]
) -> tuple[str, ...]:
    if sform is None and qform is None:
        return (
            "the header has neither sform nor qform: orientation taken as LAS from voxel sizes "
            "alone, left and right may be swapped",
        )
    if sform is None or qform is None:
        return ()
    corners = np.array(np.meshgrid(*((0, n - 1) for n in shape), [1])).reshape(4, -1)
    apart_mm = float(np.abs((sform - qform) @ corners).max())
    if apart_mm <= FORMS_APART_VOXELS * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return ()
    return (f"qform and sform disagree by up to {apart_mm:.1f} mm: the sform was used",)


def _check_content(path: Path, data: NDArray[Any], labels: bool) -> None:
    low, high = data.min(), data.max()  # NaN, if there is one
    n_bad = 0
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = data[np.isfinite(data)]
        n_bad = data.size - finite.size
        low, high = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
    if n_bad and (labels or n_bad == data.size):
        raise InputError(
            f"{path}: {n_bad} voxels are NaN or infinite; expected finite numbers; repair the "
            "export or set them to 0"
        )
    if low == high and not labels:
        others = f", except for {n_bad} NaN or infinite ones" if n_bad else ""
        raise InputError(
            f"{path}: all voxels are {low:g}{others}; expected an image; check the export"
        )
