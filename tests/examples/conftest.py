"""A folder of small cases for the examples; the examples run with the shipped engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts.phantom import make_case, write_case


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of 80 x 80 x 64 voxels of 1 mm, in RAS+ order, and one that lacks its T2."""
    root = tmp_path_factory.mktemp("dataset")
    for seed, name in enumerate(("case_a", "case_b", "case_c")):
        case = make_case(seed, shape=(80, 80, 64))
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = 40, 30, -20
        write_case(replace(case, volume=replace(case.volume, affine=affine)), root / name)
    next((root / "case_c").glob("*_t2.nii.gz")).unlink()
    return root
