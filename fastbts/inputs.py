"""What a caller may hand to `Segmenter.predict`, as a Volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, GeometryError, InputError
from fastbts.volume import Volume

NO_AFFINE = "arrays were given without an affine: taken as RAS+ with 1 mm voxels"


def as_volume(
    case: Volume | NDArray[Any] | None, given: Mapping[str, Any], affine: NDArray[np.float64] | None, modalities: Sequence[str]
) -> Volume:
    """Makes a Volume with exactly `modalities`, in this order.

    Args:
        case: A Volume, an array (M, X, Y, Z), or None.
        given: Modality -> path, nibabel image, array, or None.
        affine: For arrays.
        modalities: What the engine needs.
    Raises:
        CaseError: Nothing, too much or too little was given.
        InputError, GeometryError: See `Volume`, `read_files`.
    """
    named = {name: image for name, image in given.items() if image is not None}
    if (case is None) == (not named):
        raise CaseError("give either a Volume or an array as the first argument, or the modalities by name (flair=..., t1=...)")
    if isinstance(case, Volume):
        return case.select(modalities)
    if case is not None:
        return _from_array(case, affine, modalities)
    return _from_named(named, affine, modalities).select(modalities)


def _from_array(data: Any, affine: NDArray[np.float64] | None, modalities: Sequence[str]) -> Volume:
    if isinstance(data, str | PathLike):
        raise CaseError(
            f"{data}: predict takes a Volume, an array or named modalities; read a folder with fastbts.read_case first"
        )
    array = _host_array(data, "case")
    warnings = () if affine is not None else (NO_AFFINE,)
    return Volume(array, np.eye(4) if affine is None else affine, modalities, warnings=warnings)


def _from_named(named: Mapping[str, Any], affine: NDArray[np.float64] | None, modalities: Sequence[str]) -> Volume:
    missing = [m for m in modalities if m not in named]
    if missing:
        raise CaseError(
            f"modality {', '.join(missing)} is missing; got {', '.join(named)}; the engine needs {', '.join(modalities)}"
        )
    if all(isinstance(image, str | PathLike) for image in named.values()):
        from fastbts.case import read_files

        return read_files(**named)
    if any(isinstance(image, str | PathLike) for image in named.values()):
        raise CaseError("paths and images in memory are mixed; give all modalities in one way")
    affines = [getattr(image, "affine", None) for image in named.values()]
    if affine is None and affines[0] is not None:
        affine = affines[0]
    _check_affines(named, affines, affine)
    arrays = [_host_array(getattr(image, "dataobj", image), name) for name, image in named.items()]
    if len({a.shape for a in arrays}) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in zip(named, arrays, strict=True))
        raise GeometryError(f"shapes differ: {shapes}; co-register the images or resample them to one grid first")
    warnings = () if affine is not None else (NO_AFFINE,)
    header = getattr(next(iter(named.values())), "header", None)
    return Volume(np.stack(arrays), np.eye(4) if affine is None else affine, tuple(named), warnings=warnings, header=header)


def _check_affines(named: Mapping[str, Any], affines: Sequence[Any], wanted: NDArray[np.float64] | None) -> None:
    for name, affine in zip(named, affines, strict=True):
        if affine is not None and wanted is not None and not np.allclose(affine, wanted, atol=1e-3):
            raise GeometryError(
                f"{name}: affine differs from the first image's; co-register the images or resample them to one grid first"
            )


def _host_array(data: Any, name: str) -> NDArray[Any]:
    """Borrows anything that NumPy or DLPack can read without surprises."""
    if not hasattr(data, "__array__") and hasattr(data, "__dlpack__"):
        return np.from_dlpack(data)
    array = np.asarray(data)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: expected an array of real numbers, got {type(data).__name__} of dtype {array.dtype}")
    return array
