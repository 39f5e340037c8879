"""The network in one pass and in sliding windows."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts import Segmenter, SegmenterOptions
from tests.conftest import VoxelEngine

Case = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_sliding_windows_equal_one_pass(small_case: Case, overlap: float) -> None:
    images, affine = small_case
    engine = VoxelEngine()
    sliding = Segmenter(
        engine, options=SegmenterOptions(mode="sliding", overlap=overlap), warm_up=False
    )
    result = sliding.predict(images, affine=affine)
    assert engine.n_calls == result.report["windows"]["count"] > 1
    whole = Segmenter(engine, options=SegmenterOptions(mode="one-pass"), warm_up=False).predict(
        images, affine=affine
    )
    np.testing.assert_allclose(result.logits, whole.logits, atol=1e-4)


def test_auto_slides_when_the_tensor_is_large(small_case: Case) -> None:
    images, affine = small_case
    options = SegmenterOptions(max_one_pass_voxels=1000)
    assert (
        Segmenter(VoxelEngine(), options=options)
        .predict(images, affine=affine)
        .report["windows"]["mode"]
        == "sliding"
    )
