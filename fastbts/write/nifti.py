"""Label images as NIfTI, on the grid of their input."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError, OptionsError
from fastbts.files import OpenFile, atomic_write, check_not_input
from fastbts.formats.compression import fast_zlib
from fastbts.formats.nifti_header import NiftiHeader
from fastbts.volume import MAX_APART, Geometry, Volume
from fastbts.write.ours import COMMENT_CODE

IMAGE_SUFFIXES = (".nii.gz", ".nii")
SCANNER_CODE = 1  # NIFTI_XFORM_SCANNER_ANAT
QUATERNION = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
# Header fields that place the voxels in space, by precedence. Nothing else is copied from the
# input's header: its free text may name the patient.
FORM_FIELDS = {
    "sform": ("sform_code", "srow_x", "srow_y", "srow_z"),
    "qform": ("qform_code", *QUATERNION),
}


def write_labels(
    path: str | Path,
    labels: NDArray[np.uint8],
    volume: Volume,
    label_values: Mapping[str, int],
    provenance: Mapping[str, Any],
    open_file: OpenFile = atomic_write,
) -> str:
    """Writes a label image with the affine, valid qform, valid sform and codes of the input.

    A NIfTI-2 input gives NIfTI-2, all others NIfTI-1. Names, values, provenance and a CRC-32 of the
    voxels go into a comment extension as JSON. The same arguments give the same bytes.

    Args:
        path: `.nii.gz` or `.nii`.
        labels: uint8, (i, j, k).
        volume: The segmented images. If they have no header, or one that does not match their
            affine, sform and qform get code 1 ("scanner"). A qform cannot hold shear: it gets the
            nearest rotation, see `Geometry.unsheared`.
        label_values: Name of each label -> its value.
        provenance: Content for JSON.
        open_file: `atomic_write`, or what `write_set` yields.

    Returns:
        The file's sha256.

    Raises:
        OptionsError: The path has another suffix.
        InputError: The labels have another type or shape than uint8 on the volume's grid.
        OutputError: The file cannot be written, or is one of the volume's files.
    """
    path = Path(path)
    is_packed = path.name[len(image_stem(path)) :].lower() == ".nii.gz"
    if labels.dtype != np.uint8 or labels.shape != volume.geometry.shape:
        raise InputError(
            f"{path}: expected uint8 labels of shape {volume.geometry.shape}, "
            f"got {labels.dtype} {labels.shape}"
        )
    check_not_input(path, volume.names)
    # NIfTI's first axis is the fastest. Labels that are stored this way are not copied.
    voxels = np.ascontiguousarray(labels.T).data
    comment = {
        "labels": dict(label_values),
        "provenance": dict(provenance),
        "voxels_crc32": fast_zlib.crc32(voxels),
    }
    header, digest = _header_bytes(volume, comment), hashlib.sha256()
    with open_file(path) as file:
        for part in _gzipped(header, voxels) if is_packed else (header, voxels):
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _gzipped(*parts: bytes | memoryview) -> Iterator[bytes]:
    """One gzip member; zlib's own header holds neither time nor name.

    Z_RLE packs label maps as small as level 6, and as fast as level 1 (15 ms for 8.9 M voxels).
    """
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    yield from map(packer.compress, parts)
    yield packer.flush()


def image_stem(path: str | Path) -> str:
    """Name of an image file without `.nii.gz` or `.nii`.

    Raises:
        OptionsError: The path has another suffix.
    """
    name = Path(path).name
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    raise OptionsError(
        f"{path}: expected a name that ends in {' or '.join(IMAGE_SUFFIXES)}; rename the output"
    )


def _header_bytes(volume: Volume, comment: Mapping[str, Any]) -> bytes:
    """The file's bytes before the voxels: header, then the comment extension."""
    header = _grid_header(volume)
    text = json.dumps(comment, allow_nan=False).encode()
    # nifti1.h: with its two leading integers, an extension's size is a multiple of 16 bytes.
    size = -(-(len(text) + 8) // 16) * 16
    extension = struct.pack("=ii", size, COMMENT_CODE) + text.ljust(size - 8, b"\0")
    header["vox_offset"] = header.sizeof_hdr + 4 + size
    return header.to_bytes() + b"\1\0\0\0" + extension


def _grid_header(volume: Volume) -> NiftiHeader:
    """A new header with the volume's shape and position in space.

    The forms of the input are kept as far as they are valid; the others are made from the affine,
    because ITK refuses images without a usable one. If the input has neither form, the result has
    neither, so that every program shows both at the same place.
    """
    given, geometry = volume.header, volume.geometry
    given = None if given is None else NiftiHeader.of(given)
    header = NiftiHeader.new(given.version if given else 1, geometry.shape)
    header.set_sform(geometry.affine, SCANNER_CODE)
    header.set_qform(geometry.unsheared, SCANNER_CODE)
    if given is not None:
        _keep_forms(header, given, geometry)
    return header


def _keep_forms(header: NiftiHeader, given: NiftiHeader, geometry: Geometry) -> None:
    """Copies the forms of the input's header that are valid, if they agree with the geometry."""
    coded = [name for name in FORM_FIELDS if given[f"{name}_code"] > 0]
    tried = ((name, _form(given, name, geometry.shape)) for name in coded or ["neither"])
    forms = {name: form for name, form in tried if form is not None}
    valid = list(forms)
    if not valid or geometry.voxels_apart(forms[valid[0]]) > MAX_APART:
        return
    header["xyzt_units"] = given["xyzt_units"]
    for name in FORM_FIELDS:
        header[f"{name}_code"] = given[f"{valid[0]}_code"] if coded else 0
    for field in (field for name in valid for field in FORM_FIELDS.get(name, ())):
        header[field] = given[field]
    if valid != ["sform"]:  # beside an sform, voxel sizes may be anything
        header["pixdim"][:4] = given["pixdim"][:4]


def _form(
    header: NiftiHeader, name: str, shape: tuple[int, int, int]
) -> NDArray[np.float64] | None:
    """The affine of a form, or of the voxel sizes alone; None if a program may refuse it."""
    get = {"sform": header.sform, "qform": header.qform}.get(name, header.base_affine)
    try:
        return Geometry(shape, get()).affine
    except ValueError:  # a GeometryError is one, too
        return None
