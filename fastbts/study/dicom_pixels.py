"""Decodes the pixels of DICOM slices, compressed or not, into one array."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import InputError, optional_module, quietly
from fastbts.study.dicom_files import EXTRA
from fastbts.study.dicom_frames import Frame


def decoded(label: str, frames: Sequence[Frame]) -> NDArray[Any]:
    """The voxels of sorted slices, (i, j, k), first axis fastest in memory.

    Args:
        label: Names the series in errors.
        frames: Of one kind.
    Raises:
        DeviceError: pydicom is not installed.
        InputError: A file is gone, damaged or cannot be decoded.
    """
    planes = _planes(label, frames)
    scales = {frame.scale for frame in frames}
    # One positive factor changes nothing; see `fastbts.read.header.scaling_of`.
    plain = len(scales) == 1 and frames[0].scale[0] > 0 and frames[0].scale[1] == 0
    dtype = np.result_type(*{plane.dtype for plane in planes}) if plain else np.dtype(np.float32)
    out = np.empty((len(frames), *frames[0].shape), dtype)
    for target, plane, frame in zip(out, planes, frames, strict=True):
        target[...] = plane if plain else plane * np.float32(frame.scale[0]) + frame.scale[1]
    return out.T


def _planes(label: str, frames: Sequence[Frame]) -> list[NDArray[Any]]:
    """The pixels of each slice, (rows, columns); each file is read once."""
    places: dict[Path, list[int]] = defaultdict(list)
    for n, frame in enumerate(frames):
        places[frame.file].append(n)
    planes: dict[int, NDArray[Any]] = {}
    for path, numbers in places.items():
        try:
            pixels = _pixels(path, [frames[n].index for n in numbers])
        except Exception as error:  # decoders raise almost anything for a damaged file
            raise InputError(
                f"series {label}: slice {numbers[0] + 1} cannot be decoded: {_reason(error)}; "
                "send the series again"
            ) from error
        planes |= dict(zip(numbers, pixels, strict=True))
    for n, frame in enumerate(frames):
        if planes[n].shape != frame.shape:
            raise InputError(
                f"series {label}: slice {n + 1} has {planes[n].shape} pixels, expected "
                f"{frame.shape}; send the series again"
            )
    return [planes[n] for n in range(len(frames))]


def _pixels(path: Path, indices: Sequence[int | None]) -> list[NDArray[Any]]:
    """Some frames of a file."""
    pydicom = optional_module("pydicom", EXTRA)
    decode = optional_module("pydicom.pixels", EXTRA).pixel_array
    with quietly():
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = (
                pydicom.uid.ImplicitVRLittleEndian
                if implicit
                else pydicom.uid.ExplicitVRLittleEndian
            )
        return [decode(dataset, index=index) for index in indices]


def _reason(error: Exception) -> str:
    """The error without the path, which may name the patient."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())
