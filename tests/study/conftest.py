"""Tests of studies need the extra `[dicom]`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fastbts.phantom.study import SCANS, StudyCase, coarser, write_study
from tests.study.made import head


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyCase:
    """The phantom with a skull as a raw study; skips without pydicom."""
    if importlib.util.find_spec("pydicom") is None:
        pytest.skip("pydicom is not installed: pip install 'fastbts[dicom]'")
    folder: Path = tmp_path_factory.mktemp("study")
    return write_study(head(), folder, coarser(SCANS, 5))
