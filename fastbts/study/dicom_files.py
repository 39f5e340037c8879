"""Which of many files are DICOM images, by their content, and what their headers say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbts.errors import InputError, optional_module, quietly

EXTRA = "dicom"
# Files without the preamble of PS3.10 begin with an element of group 0002 or 0008.
NEEDED = ("SeriesInstanceUID", "Rows", "Columns")
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|7z|rar|tar\.\w+)$", re.IGNORECASE)
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "PatientID", "PatientName", "PatientBirthDate"),
    *("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "SeriesNumber"),
    *("ScanningSequence", "BodyPartExamined", "ImageType", "Manufacturer"),
    *("EchoTime", "RepetitionTime", "InversionTime", "DiffusionBValue"),
    *("ContrastBolusAgent", "ContrastBolusAgentSequence"),
    *("EchoPulseSequence", "InversionRecovery", "EchoPlanarPulseSequence"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "AcquisitionDate", "AcquisitionTime"),
    *("AcquisitionDateTime", "SeriesDate", "SeriesTime", "Rows", "Columns", "PixelSpacing"),
    *("ImageOrientationPatient", "ImagePositionPatient", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation", "SamplesPerPixel"),
    *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""What is read of a header; nothing else of it comes into memory."""


def all_files(paths: str | Path | Iterable[str | Path]) -> Iterator[Path]:
    """The files themselves and those in folders, at any depth, in a stable order.

    Raises:
        InputError: A path does not exist.
    """
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        is_broken = path.is_symlink() and not path.exists()
        if not path.exists() and not is_broken:
            raise InputError(f"{path}: does not exist; expected a folder or a file of a study")
        if path.is_file() or is_broken:
            yield path
            continue
        visited = {path.resolve()}
        for folder, below, names in os.walk(path, onerror=_refuse, followlinks=True):
            below[:] = [name for name in sorted(below) if _is_new(Path(folder, name), visited)]
            yield from (Path(folder, name) for name in sorted(names))


def _is_new(folder: Path, visited: set[Path]) -> bool:
    """False where links led to a folder before."""
    place = folder.resolve()
    is_new = place not in visited
    visited.add(place)
    return is_new


def _refuse(error: OSError) -> None:
    raise InputError(
        f"study: a folder cannot be listed: {error.strerror}; check its permissions"
    ) from error


def nothing_found(files: Sequence[Path], kinds: str) -> str:
    """The message where no file is an image."""
    n_archives = sum(ARCHIVE.search(path.name) is not None for path in files)
    n_broken = sum(path.is_symlink() and not path.exists() for path in files)
    way = "check the folder"
    if n_archives:
        way = f"unpack the archives among them: {n_archives}"
    elif n_broken:
        way = f"{n_broken} are links to files that are not there: get these first (git annex get)"
    return f"study: none of {len(files)} files is a {kinds} image; {way}"


def is_dicom(path: Path) -> bool:
    """Whether a file begins like DICOM, with or without the preamble.

    Raises:
        InputError: The file may not be read.
    """
    if not path.is_file():  # a broken link, a pipe
        return False
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except PermissionError as error:
        raise InputError(
            f"study: a file cannot be opened: {error.strerror}; check the files' permissions"
        ) from error
    except OSError:
        return False
    return start[128:] == b"DICM" or start[:2] in _FIRST_GROUPS


def read_dataset(path: Path) -> Any:
    """The header of a DICOM image, a pydicom dataset; None for any other object.

    Raises:
        DeviceError: pydicom is not installed.
        InputError: The file is an image, and damaged.
    """
    pydicom = optional_module("pydicom", EXTRA)
    has_preamble = False
    try:
        with path.open("rb") as file:
            has_preamble = file.read(132)[128:] == b"DICM"
        with quietly():
            dataset = pydicom.dcmread(
                path, stop_before_pixels=True, force=not has_preamble, specific_tags=list(TAGS)
            )
            _convert(dataset)
    except Exception:  # pydicom raises almost anything for a damaged file
        dataset = {}
    if all(keyword in dataset for keyword in NEEDED):
        return dataset
    if has_preamble and _should_be_image(dataset):
        raise InputError("study: a DICOM image is damaged; send it again")
    return None


def is_image(path: Path) -> bool:
    """Whether a DICOM file is an image, damaged or not; reports and directories are none."""
    try:
        return read_dataset(path) is not None
    except InputError:
        return True


def _should_be_image(dataset: Any) -> bool:
    """Whether the first part of a file says so, or is itself damaged."""
    with quietly():
        kind = getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    return kind is None or "Image" in kind.name


def stored_pixels(path: Path) -> bytes:
    """The pixels of an image as they are stored; empty if there are none."""
    pydicom = optional_module("pydicom", EXTRA)
    with quietly():
        dataset = pydicom.dcmread(path, force=True, specific_tags=["PixelData"])
    return bytes(dataset.get("PixelData") or b"")


def _convert(dataset: Any) -> None:
    """Converts all values now, and removes those that are damaged."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            for item in element.value if element.VR == "SQ" else ():
                for _ in item.iterall():
                    pass
        except Exception:  # pydicom raises almost anything for a damaged value
            del dataset[tag]
