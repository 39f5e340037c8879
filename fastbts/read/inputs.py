"""What a caller may hand to `Segmenter.predict`, as a Volume."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, GeometryError, InputError
from fastbts.read.quality import inspected
from fastbts.spec import EngineSpec
from fastbts.volume import MAX_AFFINE_DIFFERENCE, Volume, check_present

NO_AFFINE = "arrays were given without an affine: taken as RAS+ with 1 mm voxels"


def as_volume(
    case: Volume | NDArray[Any] | None,
    given: Mapping[str, Any],
    affine: NDArray[np.float64] | None,
    spec: EngineSpec,
) -> Volume:
    """Makes a Volume with the engine's modalities, in its order; without those of its optional ones that were not given.

    Args:
        case: A Volume, an array (M, X, Y, Z), or None.
        given: Modality -> path, nibabel image, array, or None.
        affine: For arrays.
        spec: What the engine needs.
    Raises:
        CaseError: Nothing, too much or too little was given.
        InputError, GeometryError: See `Volume`, `read_files`.
    """
    named = {name: image for name, image in given.items() if image is not None}
    if (case is None) == (not named):
        raise CaseError(
            "give either a Volume or an array as the first argument, or the modalities by name (flair=..., t1=...)"
        )
    if isinstance(case, Volume):
        _no_affine(affine, "a Volume")
        return case.select(spec.modalities, spec.optional_modalities)
    if case is not None:
        return inspected(_from_array(case, affine, spec.modalities))
    check_present(
        tuple(named), spec.modalities, spec.optional_modalities
    )  # before anything is read
    return _from_named(named, affine).select(spec.modalities, spec.optional_modalities)


def _from_array(data: Any, affine: NDArray[np.float64] | None, modalities: Sequence[str]) -> Volume:
    if isinstance(data, str | PathLike):
        raise CaseError(
            f"{data}: predict takes a Volume, an array or named modalities; read a folder with fastbts.read_case first"
        )
    return _placed(_host_array(data, "case"), affine, modalities)


def _from_named(named: Mapping[str, Any], affine: NDArray[np.float64] | None) -> Volume:
    kinds = {_kind(image) for image in named.values()}
    if len(kinds) > 1:
        raise CaseError(f"{' and '.join(sorted(kinds))} are mixed; give all modalities in one way")
    if kinds == {"paths"}:
        from fastbts.read.case import read_files

        _no_affine(affine, "files")
        return read_files(**named)
    if kinds == {"nibabel images"}:
        return inspected(_from_images(named, affine))
    arrays = {name: _host_array(image, name) for name, image in named.items()}
    return inspected(_placed(_stacked(arrays), affine, tuple(named)))


def _kind(image: Any) -> str:
    if isinstance(image, str | PathLike):
        return "paths"
    return "nibabel images" if hasattr(image, "dataobj") else "arrays"


def _placed(
    data: NDArray[Any], affine: NDArray[np.float64] | None, modalities: Sequence[str]
) -> Volume:
    if affine is None:
        return Volume(data, np.eye(4), modalities, warnings=(NO_AFFINE,))
    return Volume(data, affine, modalities)


def _from_images(named: Mapping[str, Any], affine: NDArray[np.float64] | None) -> Volume:
    import nibabel as nib

    _no_affine(affine, "nibabel images")
    first = next(iter(named.values()))
    for name, image in named.items():
        if not np.allclose(image.affine, first.affine, atol=MAX_AFFINE_DIFFERENCE):
            raise GeometryError(
                f"{name}: affine {image.affine.round(4).tolist()} differs from the first image's {first.affine.round(4).tolist()}; "
                "co-register the images or resample them to one grid first"
            )
    header = first.header if isinstance(first.header, nib.Nifti1Header) else None
    return Volume(
        _stacked({n: _image_array(image, n) for n, image in named.items()}),
        first.affine,
        tuple(named),
        header=header,
    )


def _stacked(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise GeometryError(
            f"shapes differ: {shapes}; co-register the images or resample them to one grid first"
        )
    return np.stack(list(arrays.values()))


def _image_array(image: Any, name: str) -> NDArray[Any]:
    """The voxels of a nibabel image, read now if they are still on disk; one volume of a 4-D image is fine."""
    try:
        array = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{name}: cannot be read: {error}; is the file whole?") from error
    return _host_array(array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array, name)


def _host_array(data: Any, name: str) -> NDArray[Any]:
    """Borrows anything that NumPy or DLPack can read without surprises; other byte orders and float16 are converted."""
    if not hasattr(data, "__array__") and hasattr(data, "__dlpack__"):
        return np.asarray(np.from_dlpack(data))
    array = np.asarray(data)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{name}: expected an array of real numbers of at most 64 bits, got {type(data).__name__} of dtype {array.dtype}"
        )
    return array.astype(
        np.float32 if array.dtype == np.float16 else array.dtype.newbyteorder("="), copy=False
    )


def _no_affine(affine: Any, what: str) -> None:
    if affine is not None:
        raise CaseError(
            f"affine was given with {what}; it is for arrays only, as {what} bring their own"
        )
