"""Any arrays and affines give a result on their own grid, or a typed error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastbts import FastBTSError, Segmenter
from tests.budget import examples, only

pytestmark = pytest.mark.guard
DTYPES = ["u1", "i2", "i4", "u8", "f2", "f4", "f8", ">f4", "c8", "?", "M8[s]", "S3", "O"]
ODD = [0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, -1e30, np.nan, np.inf, -np.inf]

shapes = st.one_of(
    st.tuples(st.just(4), *[st.integers(1, 20)] * 3),
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=8),
)
affines = st.one_of(
    st.none(),
    st.just(np.eye(4)),
    arrays.arrays("f8", (4, 4), elements=st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, np.nan, 1e9])),
    arrays.arrays("f8", arrays.array_shapes(max_dims=3, max_side=4), elements=st.just(1.0)),
)


@st.composite
def volumes(draw: st.DrawFn) -> np.ndarray:
    """Random voxels with some odd values in them, in any memory order."""
    shape, dtype = draw(shapes), np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.asarray(rng.normal(100, 30, shape) * (rng.random(shape) > draw(st.floats(0, 1))))
    for value in draw(st.lists(st.sampled_from(ODD), max_size=3)):
        if values.size:
            values.flat[rng.integers(values.size)] = value
    with np.errstate(all="ignore"):
        array = values.astype("i8" if dtype.kind == "M" else dtype).astype(dtype)
    return np.asarray(array[..., ::-1] if draw(st.booleans()) and array.ndim else array)


@pytest.mark.filterwarnings("ignore")  # NumPy's, about the odd values
@examples(150, 10_000)
@given(volume=volumes(), affine=affines, order=st.sampled_from([None, ("t1", "t2"), ("x",) * 4]))
def test_any_array(voxel_segmenter: Segmenter, volume: Any, affine: Any, order: Any) -> None:
    with only(FastBTSError):
        result = voxel_segmenter.predict(volume, affine=affine, order=order)
        assert result.labels.shape == volume.shape[1:]
        assert all(np.isfinite(ml) for ml in result.volumes_ml.values())
