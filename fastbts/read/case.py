"""The images of a case: found by their names, and read together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts.errors import CaseError, GeometryError, OptionsError
from fastbts.read.nifti import ImageHeader, image_of, read_header, read_voxels
from fastbts.read.quality import inspected
from fastbts.read.regrid import resample_to_grid
from fastbts.volume import IF_MISSING, MODALITIES, Volume

ENDINGS = {
    "flair": "flair", "t2f": "flair",
    "t1": "t1", "t1n": "t1", "t1w": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""Last word of a file's name -> modality: BraTS to 2021, BraTS from 2023, BIDS, UPenn."""
EXPECTED = (
    "*_flair, *_t1, *_t1ce, *_t2, or *-t2f, *-t1n, *-t1c, *-t2w, or BIDS names; .nii or .nii.gz"
)
GRID_OPTION = "--grid MODALITY, predict(..., grid=MODALITY)"

_NAMED = re.compile(
    rf"(?:(?P<stem>.*)[_-])?(?P<kind>{'|'.join(ENDINGS)})\.nii(?:\.gz)?", re.IGNORECASE
)
_NUMBERED = re.compile(r"(?P<stem>.*)_(?P<channel>\d{4})\.nii(?:\.gz)?", re.IGNORECASE)
_CONTRAST = re.compile(r"(?:^|_)ce-", re.IGNORECASE)  # BIDS entity of a contrast-enhanced image


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
        warnings=(*_header_warnings(headers), *resampled),
        sha256=sha256,
        header=target.nifti,
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


def check_order(option: str, order: Any, known: Sequence[str], *, all_of: bool = False) -> None:
    """Raises OptionsError unless `order` has different names out of `known`, or all of them."""
    names = [] if isinstance(order, str) or not isinstance(order, Sequence) else list(order)
    right = names and all(name in known and names.count(name) == 1 for name in names)
    if not right or (all_of and len(names) < len(known)):
        raise OptionsError(
            f"{option} {order!r}: expected {'each of' if all_of else 'names out of'} "
            f"{', '.join(known)}, each once, for example {tuple(known)}"
        )


def find_case(
    folder: str | Path, nnunet_order: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> dict[str, Path]:
    """Finds the images of one case by their names, in upper or lower case.

    `*_flair|_t1|_t1ce|_t2` (BraTS to 2021), `*-t2f|-t1n|-t1c|-t2w` (BraTS from 2023),
    `*_FLAIR|_T1w|_ce-*_T1w|_T2w` (BIDS), each .nii or .nii.gz. `*_0000` to `*_0003` (nnU-Net) only
    with `nnunet_order`, because those names do not say the modality.

    Returns:
        Modality -> path, in the order flair, t1, t1ce, t2.

    Raises:
        CaseError: A modality that is not in `optional` is missing, two files have the same one, or
            the folder holds several cases or none.
        OptionsError: `nnunet_order` is not a sequence of modalities, each once.
    """
    folder = Path(folder)
    if nnunet_order is not None:
        check_order("nnunet_order", nnunet_order, MODALITIES, all_of=True)
    try:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise CaseError(
            f"{folder}: cannot list: {reason}; expected a folder with {EXPECTED}"
        ) from error
    claims = list(_claims(names, nnunet_order))
    if not claims:
        raise CaseError(f"{folder}: {_nothing_found(folder, names)}")
    problem = _ambiguity(claims) or _absence(claims, optional)
    if problem:
        raise CaseError(f"{folder}: {problem}")
    found = {claim.modality: folder / claim.name for claim in claims}
    return {modality: found[modality] for modality in MODALITIES if modality in found}


@dataclass(frozen=True)
class _Claim:
    """A file whose name says which modality of which case it is."""

    modality: str
    case: str
    name: str


def _claims(names: Iterable[str], nnunet_order: Sequence[str] | None) -> Iterator[_Claim]:
    for name in names:
        if nnunet_order is None and (named := _NAMED.fullmatch(name)):
            stem, modality = named["stem"] or "", ENDINGS[named["kind"].lower()]
            if modality == "t1" and _CONTRAST.search(stem):
                modality = "t1ce"
            yield _Claim(modality, _case_of(stem), name)
        elif nnunet_order is not None and (numbered := _NUMBERED.fullmatch(name)):
            channel = int(numbered["channel"])
            if channel < len(nnunet_order):
                yield _Claim(nnunet_order[channel], _case_of(numbered["stem"]), name)


def _case_of(stem: str) -> str:
    """What all files of a case share: the beginning of the name; in BIDS, subject and session."""
    entities = [part for part in stem.lower().split("_") if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) or stem.lower()


def _ambiguity(claims: Sequence[_Claim]) -> str | None:
    cases = sorted({claim.case for claim in claims})
    if len(cases) > 1:
        return (
            f"holds files of several cases ({_listed(cases)}); put each case into a folder of its "
            "own, or name the files one by one"
        )
    rivals = defaultdict(list)
    for claim in claims:
        rivals[claim.modality].append(claim.name)
    double = [
        f"{modality} ({', '.join(names)})" for modality, names in rivals.items() if len(names) > 1
    ]
    if double:
        return (
            f"expected one file per modality, got more for {'; '.join(double)}; remove one, or "
            "name the files one by one"
        )
    return None


def _absence(claims: Sequence[_Claim], optional: Sequence[str]) -> str | None:
    missing = [
        m for m in MODALITIES if m not in optional and m not in {claim.modality for claim in claims}
    ]
    if not missing:
        return None
    found = ", ".join(f"{claim.modality} ({claim.name})" for claim in claims)
    return f"no file for {', '.join(missing)}; found {found}; expected {EXPECTED}; {IF_MISSING}"


def _nothing_found(folder: Path, names: Sequence[str]) -> str:
    if any(_NUMBERED.fullmatch(name) for name in names):
        return (
            "nnU-Net names (_0000 ...) do not say the modality; give nnunet_order, for example "
            "('t1', 't1ce', 't2', 'flair'), or name the files one by one"
        )
    cases = [name for name in names if _holds_images(folder / name)]
    if cases:
        return f"holds no images itself, but folders of cases ({_listed(cases)}); give one of them"
    return (
        f"holds no images of a case; expected {EXPECTED}; got {_listed(names) or 'an empty folder'}"
    )


def _holds_images(folder: Path) -> bool:
    with suppress(OSError):
        return any(_NAMED.fullmatch(path.name) for path in folder.iterdir())
    return False


def _listed(names: Sequence[str], at_most: int = 6) -> str:
    return ", ".join(names[:at_most]) + (
        f", ... {len(names)} in all" if len(names) > at_most else ""
    )


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


def _header_warnings(headers: Mapping[str, ImageHeader]) -> Iterator[str]:
    """Warnings of the files, each once, with the modalities that it is about."""
    about = defaultdict(list)
    for modality, header in headers.items():
        for warning in header.warnings:
            about[warning].append(modality)
    for warning, modalities in about.items():
        yield f"{', '.join(modalities)}: {warning}"
