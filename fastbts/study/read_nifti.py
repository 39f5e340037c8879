"""Reads the series of a study from NIfTI files: unregistered, on any grids, with their skulls.

What a NIfTI header does not know, a JSON file of the same name may (BIDS, as dcm2niix writes it).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, FastBTSError, InputError
from fastbts.read.nifti import ImageHeader, count_images, read_header, read_voxels
from fastbts.study.dicom_files import all_files, nothing_found
from fastbts.study.read_dicom import Found, Refused
from fastbts.study.series import Facts, Series, cleaned, hidden

SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
MAX_SIDECAR_BYTES = 1 << 20


def is_nifti(path: Path) -> bool:
    """Whether a file has the name of a NIfTI image and is not hidden."""
    return SUFFIX.search(path.name) is not None and not path.name.startswith(".")


def read_nifti(paths: str | Path | Iterable[str | Path]) -> Found:
    """Reads the headers of NIfTI images, one series each; voxels when they are asked for.

    Args:
        paths: Folders and files; others among them are counted and ignored.
    Raises:
        CaseError: None of them is a NIfTI image; two patients or BIDS sessions.
        InputError: A path does not exist.
    """
    files = list(all_files(paths))
    images = list(dict.fromkeys(filter(is_nifti, files)))
    if not images:
        raise CaseError(nothing_found(files, "NIfTI"))
    results = [_series(path) for path in images]
    series = [result for result in results if isinstance(result, Series)]
    _check_one_patient(series)
    return Found(
        tuple(series),
        tuple(result for result in results if isinstance(result, Refused)),
        len(files) - len(images),
    )


def _check_one_patient(series: Sequence[Series]) -> None:
    """By sidecars and BIDS names, where they say it."""
    known = {
        "patient": {s.facts.patient for s in series},
        "subject": {_entity("sub", s.name) for s in series},
        "session": {_entity("ses", s.name) for s in series},
    }
    for kind, values in known.items():
        n = len(values - {""})
        if n > 1:
            raise CaseError(
                f"study: images of {n} {kind}s; expected one; give the files of one {kind}"
            )


def _entity(key: str, name: str) -> str:
    """Its value in a BIDS name, for example sub-01_ses-2_T1w."""
    match = re.search(rf"(?:^|_){key}-([^\W_]+)", name)
    return match[1] if match else ""


def _series(path: Path) -> Series | Refused:
    name = cleaned(SUFFIX.sub("", path.name))
    try:
        header = read_header(path)
    except FastBTSError as error:
        return Refused(name, str(path), _why(path, error))
    facts = _facts(name, _sidecar(path))
    read = partial(_voxels, header)
    return Series(name, str(path), header.geometry, facts, (path,), "nifti", read, header.warnings)


def _why(path: Path, error: FastBTSError) -> str:
    """Why a file is no image, without paths, which may name the patient."""
    if path.is_symlink() and not path.exists():
        return "a link to a file that is not there: get it first (git annex get)"
    n_images = count_images(path)
    if n_images > 1:
        return f"{n_images} images in one file: perfusion, diffusion or function"
    return str(error).removeprefix(f"{path}: ")


def _voxels(header: ImageHeader) -> NDArray[Any]:
    data = np.empty(header.geometry.shape[::-1], header.dtype).T
    read_voxels(header, data)
    return data


def _sidecar(path: Path) -> Mapping[str, Any]:
    """The JSON file beside an image; empty if there is none that can be read."""
    sidecar = path.with_name(SUFFIX.sub("", path.name) + ".json")
    try:
        if sidecar.stat().st_size > MAX_SIDECAR_BYTES:
            raise InputError(f"{sidecar}: too large for a sidecar")
        content = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _facts(name: str, sidecar: Mapping[str, Any]) -> Facts:
    """BIDS gives times in seconds."""
    texts = (name, *(str(sidecar.get(k, "")) for k in ("SeriesDescription", "ProtocolName")))
    image_type = sidecar.get("ImageType")
    return Facts(
        te_ms=_ms(sidecar.get("EchoTime")),
        tr_ms=_ms(sidecar.get("RepetitionTime")),
        ti_ms=_ms(sidecar.get("InversionTime")),
        contrast_agent=str(sidecar.get("ContrastBolusIngredient", "")),
        sequence=tuple(re.findall("[A-Z]+", str(sidecar.get("ScanningSequence", "")))),
        image_type=tuple(map(str, image_type)) if isinstance(image_type, list) else (),
        texts=tuple(cleaned(text) for text in texts if text),
        body_part=str(sidecar.get("BodyPartExamined", "")),
        acquired=(str(sidecar.get("AcquisitionTime", "")), _or_zero(sidecar.get("SeriesNumber"))),
        manufacturer=str(sidecar.get("Manufacturer", "")),
        patient=hidden(str(sidecar.get("PatientID", ""))),
    )


def _ms(seconds: Any) -> float | None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return 1000 * float(seconds) if is_number and np.isfinite(seconds) else None


def _or_zero(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
