"""A small case and an engine for the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fastbts.phantom import make_case, write_case
from tests.conftest import write_voxel_engine


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "case"
    write_case(make_case(3, shape=(64, 64, 48)), folder)
    return folder


@pytest.fixture(scope="session")
def voxel_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that compiles and runs in no time."""
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts")


@pytest.fixture
def case(phantom_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(phantom_folder, tmp_path / "case"))
