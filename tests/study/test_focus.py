"""A result of focus comes back to the grid of the reference series."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastbts import Volume
from fastbts.study.back import on_reference
from fastbts.write.viewer.images import Cut
from tests.pipeline.test_focus import AFFINE, engine, head, predicted, segmenter

__all__ = ["engine"]  # a fixture


def test_labels_on_another_grid(engine: Path) -> None:
    affine = AFFINE @ np.diag([1.0, 1.0, 2.5, 1.0])
    reference = Volume(np.zeros((1, 95, 110, 32), np.float32), affine, ["t1ce"])
    spec = segmenter(engine).spec
    whole, focused = (
        on_reference(predicted(engine, head((40, 51, 33)), focus=focus), reference, spec)
        for focus in (False, True)
    )
    assert whole.labels.any()
    np.testing.assert_array_equal(focused.labels, whole.labels)
    assert focused.probabilities.sum() < whole.probabilities.sum()
    assert Cut.of(focused).box == Cut.of(whole).box, "the page shows the whole brain"
