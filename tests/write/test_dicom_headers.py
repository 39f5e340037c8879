"""Headers as scanners and anonymisers write them; a result takes over what identifies it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts.errors import InputError, quietly
from fastbts.labels import ED
from fastbts.phantom.study import T1CE
from fastbts.study.read_dicom import read_dicom
from fastbts.write.dicom_headers import NEEDED, header_errors, reference_headers
from fastbts.write.dicom_seg import write_dicom_seg
from fastbts.write.dicom_sr import write_dicom_sr
from tests.study.made import write_series
from tests.study.results import edit, only
from tests.write.test_dicom import VOLUMES, check_standard

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
pytest.importorskip("highdicom", reason="needs fastbts[dicom]")


def written(folder: Path, header: dict[str, Any]) -> list[Any]:
    """Segmentation and report on a series with such a header, read again."""
    series = only(read_dicom(write_series(folder / "a", T1CE, header=header)))
    labels = np.zeros(series.geometry.shape, np.uint8)
    labels[3:9, 4:8, 5:12] = ED
    args = labels, series.geometry, series.files
    seg = write_dicom_seg(folder / "seg.dcm", *args)
    write_dicom_sr(folder / "sr.dcm", VOLUMES, *args, seg)
    return [pydicom.dcmread(folder / name) for name in ("seg.dcm", "sr.dcm")]


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00fcrgen"),
        ("ISO_IR 192", "M\u00fcller^J\u00fcrgen"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        ("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e"),
    ],
)
def test_names_in_other_letters(tmp_path: Path, charset: Any, name: str) -> None:
    header = {"SpecificCharacterSet": charset, "PatientName": name}
    for dataset, file in zip(written(tmp_path, header), ("seg.dcm", "sr.dcm"), strict=True):
        assert str(dataset.PatientName) == name
        check_standard(tmp_path / file)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("charset", ["UTF-8", "ISO-8859-1"])
def test_names_in_letters_by_another_word(tmp_path: Path, charset: str) -> None:
    """The words are no values of DICOM, but programs write them."""
    header = {"SpecificCharacterSet": charset, "PatientName": "M\u00fcller^J\u00fcrgen"}
    for dataset in written(tmp_path, header):
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "M\u00fcller^J\u00fcrgen"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientBirthDate", "19700000", ""),
        ("PatientBirthDate", "1970", ""),
        ("PatientBirthDate", "19700102", "19700102"),
        ("StudyDate", "today", ""),
        ("StudyTime", "10:10:10", ""),
        ("StudyTime", "101010.25", "101010.25"),
        ("PatientSex", "f", "F"),
        ("PatientSex", "W", ""),
        ("SpecificCharacterSet", "", None),
    ],
)
def test_values_of_no_standard(tmp_path: Path, keyword: str, value: str, kept: str | None) -> None:
    for dataset in written(tmp_path, {keyword: value}):
        found = dataset.get(keyword)
        assert (found if kept is None else str(found or "")) == kept
        assert dataset.PatientID == "PHANTOM0"


def test_anonymised_headers(tmp_path: Path) -> None:
    """Attributes that may be empty are often missing."""
    gone = ("PatientName", "PatientID", "StudyDate", "ReferringPhysicianName", "Manufacturer")
    for dataset in written(tmp_path, dict.fromkeys(gone)):
        assert dataset.PatientName == ""
    check_standard(tmp_path / "seg.dcm")


@pytest.mark.parametrize("keyword", [k for k in NEEDED if "Class" not in k])
def test_uids_that_are_missing(tmp_path: Path, keyword: str) -> None:
    paths = write_series(tmp_path, T1CE)
    edit(paths[0], **{keyword: ""})
    with pytest.raises(
        InputError, match=rf"file 1 of 20 .* has no {keyword}, .* .-o OUT/seg.nii.gz"
    ):
        reference_headers(paths)


def test_an_error_of_highdicom_is_one_of_ours() -> None:
    """Without the value, which may name the patient."""
    with (
        pytest.raises(InputError, match=r"a\.dcm: a header .* \(ValueError\)") as raised,
        header_errors(Path("a.dcm")),
    ):
        raise ValueError("Doe^Jane")
    assert "Doe" not in str(raised.value)


def test_two_threads_may_be_quiet_at_once() -> None:
    """The one that began first ends first; then warnings are shown as before."""
    level, filters = logging.getLogger("pydicom").level, list(warnings.filters)
    first, second = quietly(), quietly()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogger("highdicom").level == logging.CRITICAL
    assert warnings.filters != filters
    second.__exit__(None, None, None)
    assert logging.getLogger("pydicom").level == level
    assert warnings.filters == filters
