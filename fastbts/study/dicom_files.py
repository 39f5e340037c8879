"""Which of many files are DICOM images, by their content, and what their headers say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastbts.errors import InputError, optional_module, quietly

EXTRA = "dicom"
# Files without the preamble of PS3.10 begin with an element of group 0002 or 0008.
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
        if not path.exists():
            raise InputError(f"{path}: does not exist; expected a folder or a file of a study")
        if path.is_file():
            yield path
        for folder, below, names in os.walk(path):
            below.sort()
            yield from (Path(folder, name) for name in sorted(names))


def is_dicom(path: Path) -> bool:
    """Whether a file begins like DICOM, with or without the preamble."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start[:2] in _FIRST_GROUPS


def read_dataset(path: Path) -> Any:
    """The header of a DICOM image, a pydicom dataset; None for any other object or a damaged file.

    Raises:
        DeviceError: pydicom is not installed.
    """
    pydicom = optional_module("pydicom", EXTRA)
    try:
        with path.open("rb") as file:
            forced = file.read(132)[128:] != b"DICM"
        with quietly():
            dataset = pydicom.dcmread(
                path, stop_before_pixels=True, force=forced, specific_tags=list(TAGS)
            )
            _convert(dataset)
        whole = "SeriesInstanceUID" in dataset and "Rows" in dataset and "Columns" in dataset
        return dataset if whole else None
    except Exception:  # pydicom raises almost anything for a damaged file
        return None


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
