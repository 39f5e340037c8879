"""Files that are written whole or not at all: label images, JSON, and anything else through `atomic_write`."""

from __future__ import annotations

import json
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError, OptionsError, OutputError
from fastbts.volume import MAX_AFFINE_DIFFERENCE, Volume

IMAGE_SUFFIXES = (".nii.gz", ".nii")
COMMENT_CODE = 6  # NIfTI extension of plain text, nifti1.h "NIFTI_ECODE_COMMENT"
SCANNER_CODE = 1  # NIFTI_XFORM_SCANNER_ANAT
# What places the voxels in space. Nothing else is copied from the input's header: its free text may name the patient.
GRID_FIELDS = (
    "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name, whole and on disk, when the block ends; or not at all if it fails.

    Missing parent folders are made. A file of that name is replaced. Where the file system can (Linux: O_TMPFILE), the
    unfinished file has no name, so that even a killed process leaves nothing.

    Args:
        path: The file.

    Yields:
        A binary stream to write into.

    Raises:
        OutputError: The file cannot be written.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        _nearest_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = _unfinished(path.parent)
        try:
            with os.fdopen(fd, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(fd)
                temporary = temporary or _named(fd, path.parent)
            os.replace(temporary, path)
        except BaseException:
            if temporary:
                temporary.unlink(missing_ok=True)
            raise


def check_writable(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Finds out whether `path` could be written, before the work is done; leaves nothing behind.

    Args:
        path: A file to be written later; its folder need not exist yet.
        inputs: Files that must not be overwritten.

    Raises:
        OutputError: It could not, or it is one of the inputs.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        for given in inputs:
            if path.exists() and os.path.exists(given) and os.path.samefile(path, given):
                raise OutputError(f"{path}: is an input of this case, which would be overwritten; choose another output")
        fd, temporary = _unfinished(_nearest_folder(path))
        os.close(fd)
        if temporary:
            temporary.unlink()


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
        raise InputError(f"{path}: expected uint8 labels of shape {volume.geometry.shape}, got {labels.dtype} {labels.shape}")
    check_writable(path, volume.names)
    head = _header_bytes(volume, {"labels": dict(label_values), "provenance": dict(provenance)})
    voxels = np.ascontiguousarray(labels.T).data  # first axis fastest, as NIfTI wants; a view if labels came in that order
    with atomic_write(path) as stream:
        if path.name[len(stem) :].lower() == ".nii":
            stream.write(head)
            stream.write(voxels)
        else:
            # Z_RLE: as small as level 6 on label maps and as fast as level 1 (15 ms for 8.9 M voxels). zlib's own gzip header
            # has neither time nor name.
            packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
            stream.write(packer.compress(head) + packer.compress(voxels) + packer.flush())


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON (UTF-8, indented), whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as stream:
        stream.write(text.encode() + b"\n")


def image_stem(path: str | Path) -> str:
    """Name of an image file without `.nii.gz` or `.nii`.

    Raises:
        OptionsError: It has another suffix.
    """
    name = Path(path).name
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    raise OptionsError(f"{path}: expected a name that ends in {' or '.join(IMAGE_SUFFIXES)}; rename the output")


def _refuse_irregular(path: Path) -> None:
    """A rename would put a file in the place of a device or pipe."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected the name of a file")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OutputError(f"{path}: is a device or pipe; expected the name of a file")


def _nearest_folder(path: Path) -> Path:
    """The folder of a path, or the nearest one above it that exists."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is not a folder; choose another output")
    return folder


def _unfinished(folder: Path) -> tuple[int, Path | None]:
    """Opens a new file, without a name if the system can, else with a hidden one."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # not every file system can; if the folder is at fault, the next line says so
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), None
    temporary = _hidden_name(folder)
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), temporary


def _named(fd: int, folder: Path) -> Path:
    """Gives a nameless file a hidden name, from which it can be renamed over an older file in one step."""
    temporary = _hidden_name(folder)
    # A src_dir_fd, unused with an absolute path, makes Python call linkat with AT_SYMLINK_FOLLOW, as open(2) wants.
    os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
    return temporary


def _hidden_name(folder: Path) -> Path:
    return folder / f".fastbts-{os.urandom(8).hex()}.tmp"


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot write: {reason}; choose a folder with space where you may write") from error


def _header_bytes(volume: Volume, comment: Mapping[str, Any]) -> bytes:
    """All that comes before the voxels."""
    header = _grid_header(volume)
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = 1, 0
    text = json.dumps(comment, allow_nan=False).encode()
    size = -(-(len(text) + 8) // 16) * 16  # nifti1.h: with its two leading integers a multiple of 16
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
    if not np.allclose(header.get_qform(), affine, atol=MAX_AFFINE_DIFFERENCE):  # quaternions hold no shear
        header["qform_code"] = 0
    return header
