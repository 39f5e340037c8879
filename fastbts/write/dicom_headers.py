"""Headers of the series that was segmented, mended so that a result can take them over.

Scanners and anonymisers write values that the standard does not know. What identifies patient and
study is kept; of the rest, what a result may leave empty is left empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastbts.errors import FastBTSError, InputError, optional_module, quietly

EXTRA = "dicom"
# PS3.3 C.7.1.1, C.7.2.1: must be there, may be empty. Anonymised headers often lack them.
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    "FrameOfReferenceUID",
)
SEXES = ("M", "F", "O")
FIRST_LETTERS = "ISO 2022 IR 6"  # PS3.3 C.12.1.1.2: what an empty first value stands for
ALL_LETTERS = "ISO_IR 192"
WAY_OUT = "export the series again, or write NIfTI alone (-o OUT/seg.nii.gz)"


@quietly()
def reference_headers(files: Sequence[Path]) -> list[Any]:
    """Reads the headers, pydicom datasets without pixels; call it early to see whether it works.

    Raises:
        DeviceError: highdicom is not installed.
        InputError: A file cannot be read, or lacks a UID that a result refers to.
    """
    return [_header(path, f"file {n} of {len(files)}") for n, path in enumerate(files, 1)]


@contextmanager
def header_errors(path: Path) -> Iterator[None]:
    """Turns what highdicom says about headers into an InputError; it may quote the patient."""
    try:
        yield
    except FastBTSError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path}: a header of the segmented series has a value that no DICOM object may have "
            f"({type(error).__name__}); {WAY_OUT}"
        ) from error


def _header(path: Path, which: str) -> Any:
    """The header of one file, whose name may be a patient's."""
    read = optional_module("pydicom", EXTRA).dcmread
    try:
        header = read(path, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom raises almost anything for a damaged file
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise InputError(
            f"{which} of the segmented series cannot be read as DICOM: {reason}; give the files "
            "that were segmented"
        ) from error
    missing = [keyword for keyword in NEEDED if not header.get(keyword)]
    if missing:
        raise InputError(
            f"{which} of the segmented series has no {missing[0]}, so a result cannot be placed "
            f"on it; {WAY_OUT}"
        )
    _mend(header)
    return header


def _mend(header: Any) -> None:
    for keyword in MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    _mend_letters(header)
    values = optional_module("pydicom.valuerep", EXTRA)
    for keyword, convert in (
        ("PatientBirthDate", values.DA),
        ("StudyDate", values.DA),
        ("StudyTime", values.TM),
        ("PatientSex", _sex),
    ):
        setattr(header, keyword, _or_empty(convert, header[keyword].value))


def _or_empty(convert: Callable[[str], Any], value: Any) -> Any:
    try:
        return convert(str(value or "")) or ""
    except (ValueError, OverflowError):
        return ""


def _sex(value: str) -> str:
    return value.upper() if value.upper() in SEXES else ""


def _mend_letters(header: Any) -> None:
    """Keeps the character sets if they are known; else all text becomes UTF-8."""
    given = header.get("SpecificCharacterSet")
    if not given:
        header.pop("SpecificCharacterSet", None)
        return
    sets = [given] if isinstance(given, str) else [one or FIRST_LETTERS for one in given]
    values = optional_module("highdicom.enum", EXTRA).SpecificCharacterSetValues
    if not set(sets) <= {one.value for one in values}:
        header.decode()
        sets = [ALL_LETTERS]
    header.SpecificCharacterSet = sets[0] if len(sets) == 1 else sets
