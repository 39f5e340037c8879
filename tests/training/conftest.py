"""Small training cases: a phantom of few voxels, declared to be at 1 mm as training needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts.phantom import make_case, write_case
from tests.training.clips import register_tiny_clip


def _write(seed: int, folder: Path) -> None:
    case = make_case(seed, shape=(96, 96, 64))
    write_case(
        replace(case, volume=replace(case.volume, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))), folder
    )


@pytest.fixture(scope="session")
def write_small_case() -> Callable[[int, Path], None]:
    return _write


def _write_all(folder: Path) -> None:
    for number in (1, 2, 3):
        _write(number, folder / f"case{number}")
    (folder / "cases.csv").write_text("case,split\ncase1,train\ncase2,train\ncase3,val\n")


@pytest.fixture(scope="session")
def write_cases() -> Callable[[Path], None]:
    """Writes three small cases and their cases.csv: case1 and case2 train, case3 validates."""
    return _write_all


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bits depend on the number of torch's threads, and small crops need no more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a small architecture registered with open_clip; see `tests/training/clips.py`."""
    return register_tiny_clip(tmp_path_factory.mktemp("clip"))
