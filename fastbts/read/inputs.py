"""Turns every kind of case that `Segmenter.predict` takes into a Volume."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.device.arrays import DeviceArray, DeviceImages, borrow
from fastbts.device.interface import Array
from fastbts.errors import CaseError, FastBTSError, GeometryError, InputError
from fastbts.formats.nifti_header import NiftiHeader
from fastbts.ops.arrays import is_on_device
from fastbts.read.case import grouped, load_files, load_stack
from fastbts.read.find import check_order, find_stack, images_of
from fastbts.read.forms import grid_of, has_form
from fastbts.read.header import ORDER_OPTION
from fastbts.read.quality import inspected
from fastbts.spec import EngineSpec
from fastbts.volume import MODALITIES, Geometry, Volume, check_present

NO_AFFINE = "arrays were given without an affine: taken as RAS+ with 1 mm voxels"
KINDS = "a case folder, a Volume, an array (M, X, Y, Z), or the images by modality"
FOLDER, VOLUME, ARRAY = "a case folder", "a Volume", "an array"
FILES, IMAGES, ARRAYS = "files", "nibabel images", "arrays by modality"
STACK, STACKED_IMAGE = "a 4-D file", "a 4-D nibabel image"
OPTIONS = {
    "affine": (ARRAY, ARRAYS),
    "order": (ARRAY, STACK, STACKED_IMAGE),
    "nnunet_order": (FOLDER,),
    "grid": (FOLDER, FILES),
}
"""Option -> the kinds of case that it is for."""


def one_case(case: Any, named: Mapping[str, Any]) -> Any:
    """The case that was given, by position or by the names of its images.

    Args:
        case: Any kind of case, or None.
        named: Modality -> image, or None where it was not given.
    Raises:
        CaseError: Both were given, or neither.
    """
    given = {modality: image for modality, image in named.items() if image is not None}
    if (case is None) == (not given):
        got = "both" if given else "neither"
        raise CaseError(
            f"expected either one case ({KINDS}) or images by name (flair=..., t1=...), got {got}"
        )
    return given or case


def check_cases(cases: Any) -> None:
    """Raises CaseError if what should be many cases is a single one, or nothing to iterate over."""
    single = isinstance(cases, str | PathLike | Volume | Mapping) or hasattr(cases, "__array__")
    if single or not isinstance(cases, Iterable):
        raise CaseError(
            f"cases: expected a list of cases, each {KINDS}, got one {type(cases).__name__}; "
            "give [case], or call predict"
        )


def as_volume(
    case: Any,
    spec: EngineSpec,
    *,
    affine: NDArray[np.float64] | None = None,
    order: Sequence[str] | None = None,
    nnunet_order: Sequence[str] | None = None,
    grid: str | None = None,
    device: Callable[[], str] = lambda: "cpu",
) -> Volume:
    """Makes a Volume of any kind of case: the engine's modalities, in its order, checked once.

    A Volume is taken as it is; all other kinds in host memory go through quality control. Arrays
    on a device do so later (`Segmenter`), while the device computes.

    Args:
        case: A case folder, a Volume, an array (M, X, Y, Z), a 4-D file or nibabel image
            (X, Y, Z, M), or a mapping from modality to path, nibabel image or array (X, Y, Z).
        spec: What the engine needs, and what a case may lack.
        affine: For arrays.
        order: For an array, a 4-D file or a folder that holds one, or a 4-D nibabel image: the
            modalities of its images.
        nnunet_order: For a case folder, see `find_case`.
        grid: For files, see `read_files`.
        device: Gives the engine's device, where arrays on a device must be.
    Raises:
        CaseError: An image is missing, unknown or ambiguous, or an option does not fit the case.
        OptionsError: See `check_names`.
        InputError, GeometryError: See `Volume`, `read_files`; or an array is on another device than
            the engine.
    """
    if isinstance(case, Mapping):
        case = {modality: image for modality, image in case.items() if image is not None}
    kind = _kind(case, order is not None)
    given = {"affine": affine, "order": order, "nnunet_order": nnunet_order, "grid": grid}
    _check_options(kind, given)
    check_names(spec, order=order, nnunet_order=nnunet_order, grid=grid)
    volume = _made(kind, case, spec, **given)
    if isinstance(volume.data, DeviceArray | DeviceImages):
        _check_device(volume, device())
    elif kind != VOLUME:
        volume = inspected(volume)
    return volume.select(spec.modalities, spec.optional_modalities)


def _check_device(volume: Volume, device: str) -> None:
    if volume.data.device != device:
        raise InputError(
            f"{', '.join(volume.names)}: the array is on {volume.data.device}, but the engine runs "
            f"on {device}; load the engine with device={volume.data.device!r} and a backend that "
            "runs there, or copy the array to host memory first"
        )


def _made(
    kind: str, case: Any, spec: EngineSpec, *, affine: Any, order: Any, nnunet_order: Any, grid: Any
) -> Volume:
    """Reads files and borrows arrays; what is missing is refused before anything is read."""
    if kind == VOLUME:
        return replace(case, data=_array(case.data, "volume")) if is_on_device(case.data) else case
    if kind == ARRAY:
        return _from_array(_array(case, "case"), affine, order, spec.modalities)
    if kind == STACK:
        return load_stack(find_stack(case), order)
    if kind == STACKED_IMAGE:
        return _from_stacked(case, order)
    if kind == FOLDER:
        images = images_of(case, spec.modalities, nnunet_order, spec.optional_modalities)
        return load_files(images, grid)
    images = _wanted(case, spec)
    if kind == FILES:
        return load_files(images, grid)
    if kind == IMAGES:
        return _from_images(images)
    arrays = {modality: _array(array, modality) for modality, array in images.items()}
    return _placed(_stacked(arrays), affine, tuple(arrays))


def _kind(case: Any, ordered: bool) -> str:
    if isinstance(case, Volume):
        return VOLUME
    if isinstance(case, str | PathLike):
        return STACK if ordered else FOLDER
    if hasattr(case, "dataobj"):
        if not ordered:
            raise CaseError(
                "a nibabel image alone does not say its modality; give all images of the case by "
                "name: flair=..., t1=..., t1ce=..., t2=...; or a 4-D image with its order: "
                f"{ORDER_OPTION}"
            )
        return STACKED_IMAGE
    if not isinstance(case, Mapping):
        return ARRAY
    kinds = {_kind_of_image(image) for image in case.values()}
    if len(kinds) != 1:
        problem = f"{' and '.join(sorted(kinds))} are mixed" if kinds else "no image was given"
        raise CaseError(f"{problem}; give all modalities as paths, as nibabel images or as arrays")
    return kinds.pop()


def _kind_of_image(image: Any) -> str:
    if isinstance(image, str | PathLike):
        return FILES
    return IMAGES if hasattr(image, "dataobj") else ARRAYS


def _check_options(kind: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None and kind not in OPTIONS[name]:
            raise CaseError(
                f"{name} was given with {kind}; it is for {' and '.join(OPTIONS[name])} only; "
                "leave it out"
            )


def check_names(
    spec: EngineSpec,
    *,
    order: Sequence[str] | None,
    nnunet_order: Sequence[str] | None,
    grid: str | None,
) -> None:
    """Raises OptionsError for a value of these options that fits no case of the engine."""
    if order is not None:
        check_order("order", order, _known(spec))
    if nnunet_order is not None:
        glioma = set(spec.modalities) <= set(MODALITIES)
        known = MODALITIES if glioma else spec.modalities
        check_order("nnunet_order", nnunet_order, known, all_of=True)
    if grid is not None:
        check_order("grid", [grid], _known(spec))


def _known(spec: EngineSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*spec.modalities, *MODALITIES)))


def _wanted(images: Mapping[str, Any], spec: EngineSpec) -> dict[str, Any]:
    """The images that the engine takes, in its order."""
    known = _known(spec)
    unknown = [str(name) for name in images if name not in known]
    if unknown:
        raise CaseError(
            f"modality {', '.join(unknown)}: expected {', '.join(known)}; rename the image"
        )
    check_present(tuple(images), spec.modalities, spec.optional_modalities)
    return {modality: images[modality] for modality in spec.modalities if modality in images}


def _from_array(
    data: Array,
    affine: NDArray[np.float64] | None,
    order: Sequence[str] | None,
    modalities: Sequence[str],
) -> Volume:
    names = tuple(modalities if order is None else order)
    if data.ndim == 4 and len(data) != len(names):
        if data.shape[3] == len(names):
            raise InputError(
                f"case: expected an array ({len(names)}, X, Y, Z), got shape {data.shape} with the "
                "channels last; move them to the front: np.moveaxis(array, -1, 0)"
            )
        raise CaseError(
            f"case: expected {len(names)} images ({', '.join(names)}), got an array of shape "
            f"{data.shape}; name its modalities with order=(...)"
        )
    return _placed(data, affine, names)


def _placed(data: Array, affine: NDArray[np.float64] | None, modalities: Sequence[str]) -> Volume:
    if affine is None:
        return Volume(data, np.eye(4), modalities, warnings=(NO_AFFINE,))
    return Volume(data, affine, modalities)


def _from_images(images: Mapping[str, Any]) -> Volume:
    grids = {modality: _grid(image, modality) for modality, image in images.items()}
    warnings = grouped({modality: found for modality, (_, found) in grids.items()})
    (first, (grid, _)), *others = grids.items()
    for modality, (other, _) in others:
        difference = grid.difference(other)
        if difference:
            raise GeometryError(
                f"{modality}: grid differs from the first image's ({first}): {difference}; "
                "co-register the images or resample them to one grid first"
            )
    data = _stacked({modality: _voxels(image, modality) for modality, image in images.items()})
    header = _nifti_header(images[first])
    return Volume(data, grid.affine, tuple(images), warnings=tuple(warnings), header=header)


def _nifti_header(image: Any) -> NiftiHeader | None:
    """The header of a nibabel image, if it is NIfTI."""
    import nibabel as nib

    header = getattr(image, "header", None)
    return NiftiHeader.of(header) if isinstance(header, nib.Nifti1Header) else None


def _grid(image: Any, name: str) -> tuple[Geometry, tuple[str, ...]]:
    """A nibabel image's grid: by its header, as of files, unless its affine says another one."""
    header, affine, shape = _nifti_header(image), image.affine, tuple(image.shape[:3])
    problem = "no affine, and no header with an sform or qform"
    try:
        if header is not None and _placed_by(image.header, affine):
            return grid_of(header, shape)
        if affine is not None:
            return Geometry(shape, affine), ()
    except GeometryError as error:
        problem = f"a grid that cannot be used: {error}"
    raise GeometryError(
        f"{name}: the image has {problem}; expected voxel index -> RAS+ position in mm, for "
        "example nibabel.Nifti1Image(data, affine)"
    )


def _placed_by(header: Any, affine: NDArray[np.float64] | None) -> bool:
    """Whether nibabel took the affine from its header, or may do so."""
    if affine is None:
        return has_form(NiftiHeader.of(header))
    return np.array_equal(affine, header.get_best_affine(), equal_nan=True)


def _from_stacked(image: Any, order: Sequence[str]) -> Volume:
    """The images of a 4-D nibabel image (X, Y, Z, M)."""
    shape = tuple(image.shape)
    if len(shape) < 4 or math.prod(shape[3:]) != len(order):
        raise InputError(
            f"case: expected a 4-D image (X, Y, Z, {len(order)}) of {', '.join(order)}, got shape "
            f"{shape}; name each of its images: {ORDER_OPTION}"
        )
    grid, warnings = _grid(image, "case")
    voxels = _voxels(image, "case").reshape(*shape[:3], len(order))
    header = _nifti_header(image)
    return Volume(np.moveaxis(voxels, 3, 0), grid.affine, order, warnings=warnings, header=header)


def _stacked(arrays: Mapping[str, Array]) -> Array:
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{modality} {array.shape}" for modality, array in arrays.items())
        raise GeometryError(
            f"shapes differ: {shapes}; co-register the images or resample them to one grid first"
        )
    on_device = [isinstance(array, DeviceArray) for array in arrays.values()]
    if any(on_device):
        if not all(on_device):
            raise InputError(
                f"{', '.join(arrays)}: arrays in host memory and on a device are mixed; copy all "
                "to one place"
            )
        return DeviceImages(list(arrays.values()))
    return np.stack(list(arrays.values()))


def _voxels(image: Any, modality: str) -> NDArray[Any]:
    """A nibabel image's voxels, read now if they are on disk; a 4-D image of one volume is fine."""
    try:
        array = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{modality}: cannot be read: {error}; is the file complete?") from error
    one_volume = array.ndim == 4 and array.shape[3] == 1
    return _host_array(array[..., 0] if one_volume else array, modality)


def _array(data: Any, name: str) -> Array:
    """Borrows an array of any library, in host memory or on a CUDA device."""
    if not is_on_device(data):
        return _host_array(data, name)
    try:
        array = borrow(data)
    except FastBTSError as error:
        reason = str(error).removeprefix("describe: array: ")
        raise InputError(
            f"{name}: a {type(data).__name__} on a device cannot be used here: {reason}; or copy "
            "it to host memory first"
        ) from error
    if array.dtype == np.float16:
        raise InputError(
            f"{name}: expected integers, float32 or float64 on a device, got float16; convert it "
            "first, for example with .astype('float32')"
        )
    return array


def _host_array(data: Any, name: str) -> NDArray[Any]:
    """Borrows what NumPy or DLPack can read; converts only other byte orders and float16."""
    try:
        dlpack = not hasattr(data, "__array__") and hasattr(data, "__dlpack__")
        array = np.asarray(np.from_dlpack(data) if dlpack else data)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(
            f"{name}: a {type(data).__name__} cannot be read as an array: {error}; copy it to a "
            f"NumPy array first, or give {KINDS}"
        ) from error
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{name}: expected an array of real numbers of at most 64 bits, got "
            f"{type(data).__name__} of dtype {array.dtype}; convert it first, or give {KINDS}"
        )
    native = np.float32 if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return array.astype(native, copy=False)
