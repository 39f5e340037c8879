"""Short ways to change DICOM files, and to what was read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastbts.study.read_dicom import Found, read_dicom
from fastbts.study.series import Series

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def only(found: Found) -> Series:
    (series,) = found.series
    return series


def refusal(folder: Path) -> str:
    found = read_dicom(folder)
    assert found.series == ()
    (refused,) = found.refused
    return refused.why


def edit(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
