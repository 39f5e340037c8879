"""Reads the series of a study, DICOM or NIfTI."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastbts.errors import CaseError
from fastbts.study.dicom_files import all_files, is_dicom, is_image, nothing_found
from fastbts.study.read_dicom import Found, read_dicom
from fastbts.study.read_nifti import is_nifti, read_nifti


def read_series(paths: str | Path | Iterable[str | Path], study: str | None = None) -> Found:
    """Reads the headers of a study. Where there are DICOM images, NIfTI files are ignored.

    Args:
        paths: Folders and files in any order; files of other kinds are counted and ignored.
        study: See `read_dicom`.
    Raises:
        CaseError: No images, two patients, or two studies and none was named.
        DeviceError: There are DICOM files, and pydicom is not installed.
        InputError: A path does not exist.
    """
    files = list(all_files(paths))
    dicom = [path for path in files if is_dicom(path)]
    nifti = any(map(is_nifti, files))
    if dicom and not (nifti and not any(map(is_image, dicom))):
        return read_dicom(files, study)
    if nifti:
        return read_nifti(files)
    raise CaseError(nothing_found(files, "DICOM or NIfTI"))
