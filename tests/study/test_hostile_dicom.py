"""Damaged DICOM files: an error of ours or a refused series, nothing else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fastbts.errors import FastBTSError
from fastbts.phantom.study import T1
from fastbts.study.choose import choose
from fastbts.study.read import read_series
from tests.study.made import write_series

pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
HEADER_BYTES = 1500


@pytest.mark.parametrize("seed", range(8))
def test_changed_bytes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = write_series(tmp_path, T1, n_slices=13)
    for n, path in enumerate(paths):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for at in rng.integers(0, HEADER_BYTES, rng.integers(1, 9)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(damaged))] if n % 5 == 4 else damaged)
        with suppress(FastBTSError):
            found = read_series(tmp_path)
            _ = [series.voxels for series in found.series]
            choose(found)
        path.write_bytes(whole)
    (series,) = read_series(tmp_path).series
    assert series.n_slices == 13
