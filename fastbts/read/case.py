"""The images of a case, read together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts.errors import CaseError, GeometryError
from fastbts.read.find import find_case
from fastbts.read.nifti import ImageHeader, check_content, image_of, read_header, read_voxels
from fastbts.read.quality import inspected
from fastbts.read.regrid import resample_to_grid
from fastbts.volume import MODALITIES, Volume

GRID_OPTION = "--grid MODALITY, predict(..., grid=MODALITY)"


def read_case(
    folder: str | Path,
    *,
    nnunet_order: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    grid: str | None = None,
) -> Volume:
    """Reads the case in a folder; see `find_case` for the names and `read_files` for the checks.

    Args:
        folder: Holds FLAIR, T1, T1ce and T2 of one case; other files are ignored.
        nnunet_order: Modalities of `_0000` to `_0003`, for example ("t1", "t1ce", "t2", "flair").
        optional: Modalities that may be missing, for example `segmenter.spec.optional_modalities`.
        grid: See `read_files`.

    Raises:
        CaseError, InputError, GeometryError: See `find_case` and `read_files`.
    """
    return inspected(load_files(find_case(folder, nnunet_order, optional), grid))


def read_files(
    *,
    flair: str | Path | None = None,
    t1: str | Path | None = None,
    t1ce: str | Path | None = None,
    t2: str | Path | None = None,
    grid: str | None = None,
) -> Volume:
    """Reads co-registered images, in parallel. The engine decides later whether all are needed.

    Args:
        flair: Path of a .nii or .nii.gz file.
        t1: Likewise.
        t1ce: Likewise (contrast-enhanced T1).
        t2: Likewise.
        grid: Modality whose grid all images are resampled to. For images that are registered with
            each other (the same patient space) but stored on different grids; choose the one with
            the smallest voxels. None: they must share a grid.

    Returns:
        The images given, in the order flair, t1, t1ce, t2, each as stored, with the header of the
        first, or of `grid`. The dtype is the files', or the smallest that holds all of them
        (float32 rather than float64, unless a file has float64); with `grid`, float32.

    Raises:
        CaseError: No file was given, two files hold the same image, or `grid` is not among them.
        InputError: A file cannot be used, see `read_image`.
        GeometryError: A voxel grid cannot be used, they differ, or an image is outside of `grid`.
    """
    given = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    return inspected(load_files({m: path for m, path in given.items() if path is not None}, grid))


def load_files(paths: Mapping[str, str | Path], grid: str | None = None) -> Volume:
    """Modality -> path, as a Volume in that order; see `read_files`. Its quality is not checked."""
    headers = {modality: read_header(path) for modality, path in paths.items()}
    if not headers:
        raise CaseError(f"no image was given; expected paths for {', '.join(MODALITIES)}")
    target = _check_grids(headers.values()) if grid is None else _header_of(grid, headers)
    data, sha256, resampled = _read_shared(headers) if grid is None else _read_onto(headers, grid)
    return Volume(
        data,
        target.geometry.affine,
        tuple(headers),
        names=[str(header.path) for header in headers.values()],
        warnings=(*grouped({m: h.warnings for m, h in headers.items()}), *resampled),
        sha256=sha256,
        header=target.nifti,
    )


def load_stack(path: str | Path, order: Sequence[str]) -> Volume:
    """One 4-D file of all images of a case, for example of the Medical Segmentation Decathlon.

    Args:
        path: A .nii or .nii.gz file, see `find_stack`.
        order: Modalities of its images.

    Returns:
        The images in this order. Their quality is not checked.

    Raises:
        InputError, GeometryError: See `read_files`; or the file has another number of images.
    """
    header = read_header(path, len(order))
    data = _empty(len(order), header, header.dtype)
    sha256 = read_voxels(header, data.transpose(1, 2, 3, 0))
    for modality, image in zip(order, data, strict=True):
        check_content(f"{header.path} ({modality})", image)
    return Volume(
        data,
        header.geometry.affine,
        tuple(order),
        names=[str(header.path)] * len(order),
        warnings=header.warnings,
        sha256=(sha256,) * len(order),
        header=header.nifti,
    )


_Read = tuple[NDArray[Any], tuple[str, ...], tuple[str, ...]]
"""Images (M, i, j, k), the SHA-256 of each file, and warnings."""


def _empty(n_images: int, header: ImageHeader, dtype: DTypeLike) -> NDArray[Any]:
    """(M, i, j, k) for images that are each stored in the memory order of their file."""
    return np.empty((n_images, *header.geometry.shape[::-1]), dtype).transpose(0, 3, 2, 1)


def _read_shared(headers: Mapping[str, ImageHeader]) -> _Read:
    """Reads images that share a grid: each is decompressed directly into the shared array."""
    data = _empty(len(headers), next(iter(headers.values())), _common_dtype(headers.values()))
    with ThreadPoolExecutor(len(headers)) as pool:
        return data, tuple(pool.map(read_voxels, headers.values(), data)), ()


def _read_onto(headers: Mapping[str, ImageHeader], grid: str) -> _Read:
    """Reads every image on its own grid; resamples those that differ from that of `grid`."""
    target = headers[grid]
    with ThreadPoolExecutor(len(headers)) as pool:
        images = dict(zip(headers, pool.map(image_of, headers.values()), strict=True))
    data, warnings = _empty(len(headers), target, np.float32), []
    for (modality, image), out in zip(images.items(), data, strict=True):
        if image.geometry.difference(target.geometry) is None:
            out[...] = image.data
            continue
        out[...] = resample_to_grid(image.data, image.geometry, target.geometry)
        warnings.append(f"{modality}: resampled to the grid of {grid}")
        if not out.any():
            raise GeometryError(
                f"{image.path}: shows nothing inside the grid of {target.path}; "
                "are the images registered with each other?"
            )
    return data, tuple(image.sha256 for image in images.values()), tuple(warnings)


def _header_of(grid: str, headers: Mapping[str, ImageHeader]) -> ImageHeader:
    if grid not in headers:
        raise CaseError(
            f"grid: expected one of the images given ({', '.join(headers)}), got {grid}"
        )
    return headers[grid]


def _check_grids(headers: Iterable[ImageHeader]) -> ImageHeader:
    first, *others = headers
    for header in others:
        difference = first.geometry.difference(header.geometry)
        if difference:
            raise GeometryError(
                f"{header.path}: grid differs from {first.path}: {difference}; register the images "
                f"with each other first; if they are, resample them to one grid: {GRID_OPTION}"
            )
    return first


def _common_dtype(headers: Iterable[ImageHeader]) -> np.dtype[Any]:
    dtypes = [header.dtype for header in headers]
    common = np.result_type(*dtypes)
    # NumPy goes to float64 for int32 with float32. No intensity needs more than 24 bits.
    return np.dtype(np.float32) if common == np.float64 and np.float64 not in dtypes else common


def grouped(warnings: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """The warnings of each modality, each once, with the modalities that it is about."""
    about = defaultdict(list)
    for modality, each in warnings.items():
        for warning in each:
            about[warning].append(modality)
    for warning, modalities in about.items():
        yield f"{', '.join(modalities)}: {warning}"
