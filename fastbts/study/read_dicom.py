"""Reads the series of a DICOM study from files of any name and order (extra `[dicom]`).

Slices are sorted by position, never by name or number. What cannot be one image on one grid is
refused, each series with a reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, GeometryError, optional_module
from fastbts.study.dicom_files import EXTRA, all_files, is_dicom, read_dataset
from fastbts.study.dicom_frames import Frame, frames_of, patient_of
from fastbts.study.dicom_pixels import decoded
from fastbts.study.series import Series, short_hash
from fastbts.study.words import other_purpose
from fastbts.volume import Geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_STEP_ERROR = 0.05  # of a step between slices; positions are often rounded to 0.01 mm
MAX_SLICES_APART = 0.01  # mm between two slices of one position
MAX_VOXELS = 1 << 30
MAX_REPEATS = 4  # images of one kind in a series


@dataclass(frozen=True)
class Refused:
    """A series that is no image on one grid.

    Attributes:
        name: Its description.
        uid: SeriesInstanceUID.
        why: One clause.
    """

    name: str
    uid: str
    why: str

    @property
    def label(self) -> str:
        """Names the series in messages."""
        return f"{self.name or 'no description'} ({short_hash(self.uid)})"


@dataclass(frozen=True)
class Found:
    """The series of one study.

    Attributes:
        series: Those that are images.
        refused: Those that are not.
        n_others: Files that are no DICOM images.
    """

    series: tuple[Series, ...]
    refused: tuple[Refused, ...] = ()
    n_others: int = 0


class _RefusedError(Exception):
    """Why a series is no image on one grid."""


def read_dicom(paths: str | Path | Iterable[str | Path], study: str | None = None) -> Found:
    """Reads the headers of a study; voxels are decoded when they are asked for.

    Args:
        paths: Folders and files in any order. Other files among them are counted and ignored.
        study: StudyInstanceUID, or its four digits in the error message, where there are several.
    Returns:
        All series of magnetic resonance, in the order of acquisition, and those refused.
    Raises:
        CaseError: No DICOM images; two patients; two studies and none was named.
        DeviceError: pydicom is not installed.
        InputError: A path does not exist.
    """
    files = list(all_files(paths))
    headers, n_others = [], 0
    for path in files:
        dataset = read_dataset(path) if is_dicom(path) else None
        n_others += dataset is None
        if dataset is not None:
            headers.append((path, dataset))
    if not headers:
        raise CaseError(f"study: none of {len(files)} files is a DICOM image; check the folder")
    _check_one_patient(dataset for _, dataset in headers)
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path, dataset in headers:
        groups[str(dataset.SeriesInstanceUID)].append((path, dataset))
    results = [_read_series(uid, group) for uid, group in groups.items()]
    series = [image for images, _ in results for image in images]
    refused = [why for _, whys in results for why in whys]
    series = sorted(_one_study(series, study), key=lambda image: image.facts.acquired)
    return Found(tuple(series), tuple(refused), n_others)


def _check_one_patient(datasets: Iterable[Any]) -> None:
    n = len({patient_of(dataset) for dataset in datasets})
    if n > 1:
        raise CaseError(
            f"study: images of {n} patients; expected one; give the files of one patient"
        )


def _one_study(series: list[Series], study: str | None) -> list[Series]:
    n_series = Counter(image.facts.study_uid for image in series)
    if study is not None:
        series = [s for s in series if study in (s.facts.study_uid, short_hash(s.facts.study_uid))]
        if not series:
            raise CaseError(f"study: no study {study}; {_listed(n_series)}; choose one of them")
    elif len(n_series) > 1:
        raise CaseError(
            f"study: {len(n_series)} studies of the patient: {_listed(n_series)}; give the files "
            "of one, or name it (study=)"
        )
    return series


def _listed(n_series: Counter[str]) -> str:
    return ", ".join(f"{short_hash(uid)} with {n} series" for uid, n in n_series.items())


def _read_series(uid: str, group: Sequence[tuple[Path, Any]]) -> tuple[list[Series], list[Refused]]:
    """The images of one series, and what was refused."""
    first = group[0][1]
    name = " ".join(str(first.get("SeriesDescription") or "").split())
    try:
        _check_kind(first)
        _check_decoder(first)
        parts = _parts(list(_frames(group)))
    except _RefusedError as error:
        return [], [Refused(name, uid, str(error))]
    images, refused = [], []
    for n, frames in enumerate(parts, 1):
        part = uid if n == 1 else f"{uid}/{n}"
        try:
            images.append(_image(name, part, frames))
        except _RefusedError as error:
            refused.append(Refused(name, part, other_purpose((name,)) or str(error)))
    return images, refused


def _check_kind(dataset: Any) -> None:
    modality = str(dataset.get("Modality") or "no modality")
    if modality != "MR":
        raise _RefusedError(f"{modality}, not a magnetic resonance image")
    colours = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if colours != "MONOCHROME2":
        raise _RefusedError(f"pixels are {colours}, expected MONOCHROME2: a picture or a map")


def _check_decoder(dataset: Any) -> None:
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        return
    try:
        plain = not syntax.is_compressed or syntax.is_deflated
        get_decoder = optional_module("pydicom.pixels", EXTRA).get_decoder
        available = plain or get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):  # an unknown one
        available = False
    if not available:
        raise _RefusedError(
            f"compressed as {syntax.name}, which the installed packages cannot decode; decompress "
            "it (dcmdjpeg of DCMTK), or convert the study to NIfTI (dcm2niix) and give those files"
        )


def _frames(group: Sequence[tuple[Path, Any]]) -> Iterator[Frame]:
    for path, dataset in group:
        try:
            yield from frames_of(path, dataset)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise _RefusedError(
                f"a header has no usable position, spacing or size ({error})"
            ) from None


def _parts(frames: list[Frame]) -> list[list[Frame]]:
    """The images of a series, each with its slices sorted; files that are there twice are left."""
    frames = list({frame.uid: frame for frame in frames}.values())
    n_frames = len({frame.facts.frame_of_reference_uid for frame in frames})
    if n_frames > 1:
        raise _RefusedError(
            f"slices in {n_frames} frames of reference, whose positions cannot be compared"
        )
    kinds: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        kinds[frame.kind].append(frame)
    return [part for same in kinds.values() for part in _acquisitions(same)]


def _acquisitions(frames: list[Frame]) -> list[list[Frame]]:
    """One image, or one per acquisition where slices have the same position."""
    attempts: tuple[Callable[[Frame], Any], ...] = (
        lambda frame: None,
        lambda frame: frame.acquisition[0],
        lambda frame: frame.acquisition[1],
        lambda frame: frame.acquisition,
    )
    for key in attempts:
        groups: dict[Any, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[key(frame)].append(frame)
        parts = [_sorted(groups[name]) for name in sorted(groups, key=str)]
        if all(_distinct(part) for part in parts):
            return _few(parts)
    return [_sorted(frames)]  # refused later


def _few(parts: list[list[Frame]]) -> list[list[Frame]]:
    if len(parts) > MAX_REPEATS:
        raise _RefusedError(f"{len(parts)} images one after the other: perfusion or function")
    return parts


def _heights(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Positions along the normal of the slices, in mm."""
    return np.array([frame.position for frame in frames]) @ frames[0].normal


def _sorted(frames: list[Frame]) -> list[Frame]:
    return [frames[n] for n in np.argsort(_heights(frames), kind="stable")]


def _distinct(frames: Sequence[Frame]) -> bool:
    return bool((np.diff(_heights(frames)) > MAX_SLICES_APART).all())


def _image(name: str, uid: str, frames: list[Frame]) -> Series:
    geometry, first = _grid(frames), frames[0].facts
    facts = replace(first, acquired=min(frame.facts.acquired for frame in frames))
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    label = Refused(name, uid, "").label
    return Series(name, uid, geometry, facts, files, "dicom", partial(decoded, label, frames))


def _grid(frames: list[Frame]) -> Geometry:
    """The grid of sorted slices; i along a row, j along a column, k from slice to slice."""
    n, first = len(frames), frames[0]
    if n < 2:
        raise _RefusedError("1 slice: a localizer or a single picture")
    if not _distinct(frames):
        raise _RefusedError("several images at the same positions, which nothing tells apart")
    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / (n - 1)
    _check_steps(positions, step)
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    rows, columns = first.shape
    if n * rows * columns > MAX_VOXELS:
        raise _RefusedError(f"{columns} x {rows} x {n} voxels, at most {MAX_VOXELS} are read")
    try:
        return Geometry((columns, rows, n), LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise _RefusedError(str(error)) from None


def _check_steps(positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    regular = positions[0] + np.arange(len(positions))[:, None] * step
    error = np.linalg.norm(positions - regular, axis=1).max()
    if error > MAX_STEP_ERROR * np.linalg.norm(step):
        raise _RefusedError(
            f"steps between its {len(positions)} slices of {steps.min():.2f} to {steps.max():.2f} "
            "mm, expected equal ones: slices are missing; send the series again"
        )
