"""Files that are written whole or not at all: label images, JSON, and anything else through `atomic_write`."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError, OptionsError
from fastbts.files import atomic_write, check_not_input
from fastbts.volume import MAX_AFFINE_DIFFERENCE, Volume

IMAGE_SUFFIXES = (".nii.gz", ".nii")
COMMENT_CODE = 6  # NIfTI extension of plain text, nifti1.h "NIFTI_ECODE_COMMENT"
SCANNER_CODE = 1  # NIFTI_XFORM_SCANNER_ANAT
# What places the voxels in space. Nothing else is copied from the input's header: its free text may name the patient.
GRID_FIELDS = (
    "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def write_labels(
    path: str | Path,
    labels: NDArray[np.uint8],
    volume: Volume,
    label_values: Mapping[str, int],
    provenance: Mapping[str, Any],
) -> None:
    """Writes a label image on the grid of its input: affine, qform, sform and their codes stay what they were.

    A NIfTI-2 input gives NIfTI-2, all others NIfTI-1. Names, values and provenance go into a comment extension as JSON.
    The same arguments give the same bytes.

    Args:
        path: `.nii.gz` or `.nii`.
        labels: (i, j, k) uint8.
        volume: What was segmented. Without a header, or with one that no longer fits its affine, the sform (and the qform,
            where it can express the affine) is written with code 1, "scanner".
        label_values: Name of each label -> its value.
        provenance: JSON-ready.

    Raises:
        OptionsError: Another suffix.
        InputError: The labels do not fit the volume.
        OutputError: The file cannot be written, or is one of the volume's files.
    """
    path = Path(path)
    stem = image_stem(path)
    if labels.dtype != np.uint8 or labels.shape != volume.geometry.shape:
        raise InputError(
            f"{path}: expected uint8 labels of shape {volume.geometry.shape}, got {labels.dtype} {labels.shape}"
        )
    check_not_input(path, volume.names)
    head = _header_bytes(volume, {"labels": dict(label_values), "provenance": dict(provenance)})
    voxels = np.ascontiguousarray(
        labels.T
    ).data  # first axis fastest, as NIfTI wants; a view if labels came in that order
    with atomic_write(path) as stream:
        if path.name[len(stem) :].lower() == ".nii":
            stream.write(head)
            stream.write(voxels)
        else:
            # Z_RLE: as small as level 6 on label maps and as fast as level 1 (15 ms for 8.9 M voxels). zlib's own gzip header
            # has neither time nor name.
            packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
            stream.write(packer.compress(head) + packer.compress(voxels) + packer.flush())


def image_stem(path: str | Path) -> str:
    """Name of an image file without `.nii.gz` or `.nii`.

    Raises:
        OptionsError: It has another suffix.
    """
    name = Path(path).name
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    raise OptionsError(
        f"{path}: expected a name that ends in {' or '.join(IMAGE_SUFFIXES)}; rename the output"
    )


def _header_bytes(volume: Volume, comment: Mapping[str, Any]) -> bytes:
    """All that comes before the voxels."""
    header = _grid_header(volume)
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = 1, 0
    text = json.dumps(comment, allow_nan=False).encode()
    size = (
        -(-(len(text) + 8) // 16) * 16
    )  # nifti1.h: with its two leading integers a multiple of 16
    extension = struct.pack("=ii", size, COMMENT_CODE) + text.ljust(size - 8, b"\0")
    header["vox_offset"] = header.sizeof_hdr + 4 + size
    return bytes(header.binaryblock) + b"\1\0\0\0" + extension


def _grid_header(volume: Volume) -> Any:
    """A fresh nibabel header with the volume's shape and the places of its voxels."""
    import nibabel as nib

    given, affine = volume.header, volume.affine
    header = nib.Nifti2Header() if isinstance(given, nib.Nifti2Header) else nib.Nifti1Header()
    header.set_data_shape(volume.geometry.shape)
    if given is not None:
        header["pixdim"][:4] = given["pixdim"][:4]
        for field in GRID_FIELDS:
            header[field] = given[field]
        if np.allclose(header.get_best_affine(), affine, atol=MAX_AFFINE_DIFFERENCE):
            return header
    header.set_xyzt_units("mm")
    header.set_sform(affine, SCANNER_CODE)
    header.set_qform(affine, SCANNER_CODE)
    if not np.allclose(
        header.get_qform(), affine, atol=MAX_AFFINE_DIFFERENCE
    ):  # quaternions hold no shear
        header["qform_code"] = 0
    return header
