"""Healthy brains, made from halves of heads without a tumour, are called doubtful."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbts import Segmenter
from fastbts.phantom import make_case
from fastbts.pipeline.confidence import doubts
from training.confidence import healthy_brains, mirrored_half


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2])
def test_a_synthetic_head_is_doubtful_only_without_its_tumour(
    shipped_segmenter: Segmenter, seed: int
) -> None:
    case = make_case(seed)
    assert doubts(shipped_segmenter.predict(case.volume).confidence) == []
    halves = [mirrored_half(case.volume, case.labels, side) for side in (0, 1)]
    healthy, tumour_ml = min(halves, key=lambda half: half[1])
    assert tumour_ml < 1
    result = shipped_segmenter.predict(healthy)
    assert not result.labels.any() or doubts(result.confidence)


@pytest.mark.data
def test_healthy_brains_are_doubtful(shipped_segmenter: Segmenter, val_cases: list[Path]) -> None:
    folders = [c for c in val_cases if c.name.endswith(("AMH_1", "ABM_1"))]
    brains = list(healthy_brains(folders))
    assert len(brains) == 2
    for name, volume in brains:
        result = shipped_segmenter.predict(volume)
        assert not result.labels.any() or doubts(result.confidence), name
