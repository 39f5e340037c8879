"""Reads the series of a DICOM study from files of any name and order (extra `[dicom]`).

Slices are sorted by position, never by name or number. What cannot be one image on one grid is
refused, each series with a reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fastbts.errors import CaseError, InputError, optional_module
from fastbts.study import dcm2niix
from fastbts.study.dicom_files import EXTRA, all_files, is_dicom, nothing_found, read_dataset
from fastbts.study.dicom_frames import Frame, frames_of, patient_of
from fastbts.study.dicom_parts import RefusedError, grid_of, images_of
from fastbts.study.dicom_pixels import decoded
from fastbts.study.series import Series, cleaned, short_hash
from fastbts.study.words import other_purpose


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
        n_damaged: Files that begin like DICOM, and whose header cannot be read.
    """

    series: tuple[Series, ...]
    refused: tuple[Refused, ...] = ()
    n_others: int = 0
    n_damaged: int = 0


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
    headers, n_damaged = _headers(files)
    if not headers:
        raise CaseError(nothing_found(files, "DICOM"))
    _check_one_patient(dataset for _, dataset in headers)
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path, dataset in headers:
        groups[str(dataset.SeriesInstanceUID)].append((path, dataset))
    results = [_read_series(uid, group) for uid, group in groups.items()]
    series = [image for images, _ in results for image in images]
    refused = [why for _, whys in results for why in whys]
    series = _one_study(sorted(series, key=lambda image: image.facts.acquired), study)
    n_others = len(files) - len(headers) - n_damaged
    return Found(tuple(series), tuple(refused), n_others, n_damaged)


def _headers(files: Iterable[Path]) -> tuple[list[tuple[Path, Any]], int]:
    """Of the files that are images; and how many are damaged."""
    headers, n_damaged = [], 0
    for path in filter(is_dicom, files):
        try:
            dataset = read_dataset(path)
        except InputError:
            n_damaged += 1
            continue
        if dataset is not None:
            headers.append((path, dataset))
    return headers, n_damaged


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
            f"study: {len(n_series)} studies of the patient, the oldest first: "
            f"{_listed(n_series)}; give the files of one, or name it (study=)"
        )
    return series


def _listed(n_series: Counter[str]) -> str:
    return ", ".join(f"{short_hash(uid)} with {n} series" for uid, n in n_series.items())


def _read_series(uid: str, group: Sequence[tuple[Path, Any]]) -> tuple[list[Series], list[Refused]]:
    """The images of one series, and what was refused."""
    first = group[0][1]
    name = cleaned(str(first.get("SeriesDescription") or ""))
    try:
        _check_kind(first)
        syntax = _second_reader(dataset for _, dataset in group)
        parts = images_of(list(_frames(group)))
    except RefusedError as error:
        return [], [Refused(name, uid, str(error))]
    images, refused = [], []
    for n, frames in enumerate(parts, 1):
        part = uid if n == 1 else f"{uid}/{n}"
        try:
            images.append(_image(name, part, frames, syntax))
        except RefusedError as error:
            refused.append(Refused(name, part, other_purpose((name,)) or str(error)))
    return images, refused


def _check_kind(dataset: Any) -> None:
    modality = str(dataset.get("Modality") or "no modality")
    if modality != "MR":
        raise RefusedError(f"{modality}, not a magnetic resonance image")
    colours = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if colours != "MONOCHROME2":
        raise RefusedError(f"pixels are {colours}, expected MONOCHROME2: a picture or a map")


def _second_reader(datasets: Iterable[Any]) -> str:
    """The compression that dcm2niix must decode; empty if the installed packages can."""
    syntaxes = {getattr(d, "file_meta", {}).get("TransferSyntaxUID") for d in datasets}
    unknown = [syntax for syntax in syntaxes if syntax is not None and not _is_decodable(syntax)]
    if not unknown:
        return ""
    if dcm2niix.program() is None:
        raise RefusedError(
            f"compressed as {unknown[0].name}, which the installed packages cannot decode; install "
            "dcm2niix, or decompress the files (dcmdjpeg of DCMTK)"
        )
    return str(unknown[0].name)


def _is_decodable(syntax: Any) -> bool:
    try:
        plain = not syntax.is_compressed or syntax.is_deflated
        get_decoder = optional_module("pydicom.pixels", EXTRA).get_decoder
        return bool(plain or get_decoder(syntax).is_available)
    except (NotImplementedError, ValueError):  # an unknown one
        return False


def _frames(group: Sequence[tuple[Path, Any]]) -> Iterator[Frame]:
    for path, dataset in group:
        try:
            yield from frames_of(path, dataset)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise RefusedError(
                f"a header has no usable position, spacing or size ({error})"
            ) from None


def _image(name: str, uid: str, frames: list[Frame], syntax: str) -> Series:
    geometry, first = grid_of(frames), frames[0].facts
    facts = replace(first, acquired=min(frame.facts.acquired for frame in frames))
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    label = Refused(name, uid, "").label
    if not syntax:
        return Series(name, uid, geometry, facts, files, "dicom", partial(decoded, label, frames))
    read = partial(dcm2niix.decoded, label, files, geometry)
    said = f"read by dcm2niix, as no installed package decodes {syntax}"
    return Series(name, uid, geometry, facts, files, "dicom", read, (said,))
