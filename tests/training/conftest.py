"""Small training cases: a phantom of few voxels, declared to be at the 1 mm that training asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts.phantom import make_case, write_case
from tests.training.clips import register_tiny_clip


def _write(seed: int, folder: Path) -> None:
    case = make_case(seed, shape=(96, 96, 64))
    write_case(replace(case, volume=replace(case.volume, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))), folder)


@pytest.fixture(scope="session")
def write_small_case() -> Callable[[int, Path], None]:
    return _write


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a small architecture that open_clip knows from here on; see `tests/training/clips.py`."""
    return register_tiny_clip(tmp_path_factory.mktemp("clip"))
