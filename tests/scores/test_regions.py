"""Scores of regions that are missed, absent or false."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts.scores.regions import MISSED_HD95_MM, region_scores
from tests.scores.masks import line

MM = (1.0, 1.0, 1.0)


def test_missed_and_absent_regions() -> None:
    oedema = np.where(line(4, 5), 2, 0).astype(np.uint8)
    enhancing = np.where(line(4, 5), 4, 0).astype(np.uint8)
    scores = region_scores(oedema, enhancing, (1, 1, 2))
    assert (scores["WT"]["dice"], scores["WT"]["hd95_mm"], scores["WT"]["hd95_nonempty_mm"]) == (
        1,
        0,
        0,
    )
    assert scores["WT"]["reference_ml"] == pytest.approx(0.004)
    for region in ("TC", "ET"):
        assert (
            scores[region]["dice"],
            scores[region]["hd95_mm"],
            scores[region]["hd95_nonempty_mm"],
        ) == (
            0,
            MISSED_HD95_MM,
            None,
        )
    assert region_scores(enhancing, oedema, MM)["ET"]["hd95_mm"] == MISSED_HD95_MM, (
        "found where there is none"
    )
    both = region_scores(oedema, oedema, MM)["ET"]
    assert (both["dice"], both["hd95_mm"], both["hd95_nonempty_mm"]) == (1, 0, None)
