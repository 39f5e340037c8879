"""Reads NIfTI images that may be damaged or malicious.

The header is checked before memory is allocated, the voxels while they are read. Format: NIfTI-1
(nifti1.h, https://nifti.nimh.nih.gov/nifti-1) and NIfTI-2, single files, plain or gzip (RFC 1952).
Not by nibabel, which silently accepts damaged files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError, InputError
from fastbts.formats.nifti_header import NiftiHeader
from fastbts.read.byte_stream import open_byte_stream
from fastbts.read.forms import grid_of
from fastbts.read.header import (
    MAGICS,
    check_size,
    offset_of,
    parsed,
    scaling_of,
    shape_of,
    stored_dtype,
)
from fastbts.volume import Geometry


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What a file says about its image, checked as far as it can be without the voxels.

    Attributes:
        path: The file.
        geometry: Its voxel grid.
        stored: dtype in the file, with byte order.
        slope: 1 where values are used as stored, see `scaling_of`.
        inter: 0 likewise.
        offset: First byte of the voxels, after decompression.
        nifti: The header itself.
        warnings: What is unusual but not wrong. They do not contain the path.
        n_images: Images in the file, one after the other.
    """

    path: Path
    geometry: Geometry
    stored: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    nifti: NiftiHeader = field(repr=False)
    warnings: tuple[str, ...] = ()
    n_images: int = 1

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
        return self.n_images * math.prod(self.geometry.shape) * self.stored.itemsize


@dataclass(frozen=True, eq=False)
class Image:
    """One image as stored.

    Attributes:
        data: (i, j, k), first axis fastest in memory, native byte order, not constant.
            Not scaled where the header has a positive slope and no intercept, see `scaling_of`.
        geometry: Its voxel grid.
        path: The file.
        header: Of the file.
        warnings: What is unusual but not wrong. They do not contain the path.
        sha256: Of the file's bytes.
    """

    data: NDArray[Any]
    geometry: Geometry
    path: Path
    header: NiftiHeader = field(repr=False)
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


def read_header(path: str | Path, n_images: int = 1) -> ImageHeader:
    """Reads and checks the header only, of a file with so many images; see `read_image`."""
    path = Path(path)
    with open_byte_stream(path) as stream:
        header = parsed(path, stream.read(max(MAGICS)))
    shape, stored = shape_of(path, header, n_images), stored_dtype(path, header)
    offset, (slope, inter) = offset_of(path, header), scaling_of(path, header)
    n_bytes = n_images * math.prod(shape) * stored.itemsize
    check_size(path, stream.file_size, offset + n_bytes, packed=stream.packed)
    try:
        geometry, warnings = grid_of(header, shape)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    return ImageHeader(
        path, geometry, stored, slope, inter, offset, header, warnings, n_images=n_images
    )


def count_images(path: str | Path) -> int:
    """How many images of one grid a file holds, one after the other; 0 if it cannot be read."""
    try:
        with open_byte_stream(Path(path)) as stream:
            n, *sizes = (int(size) for size in parsed(Path(path), stream.read(max(MAGICS)))["dim"])
    except InputError:
        return 0
    return max(math.prod(sizes[3 : max(n, 0)]), 0)


def read_voxels(header: ImageHeader, out: NDArray[Any], *, labels: bool = False) -> str:
    """Reads the voxels into `out` and checks them; releases the GIL while it decompresses.

    Args:
        header: From `read_header`.
        out: (i, j, k), or (i, j, k, image) for several images; first axis fastest, preferably of
            `header.dtype`, so that nothing is copied.
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
    check_content(header.path, out, labels=labels)
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


def _scaled(raw: NDArray[Any], header: ImageHeader) -> NDArray[np.float32]:
    data = raw * np.float64(header.slope) + header.inter
    # The header's float32 slope and intercept seldom cancel, but the background must be exactly 0.
    data[np.abs(data) <= 2 * np.finfo(np.float32).eps * abs(header.inter)] = 0
    return data.astype(np.float32)


def check_content(path: str | Path, data: NDArray[Any], *, labels: bool = False) -> None:
    """Raises InputError if the voxels are no image: not finite, or all equal; see `read_voxels`."""
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
