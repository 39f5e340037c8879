"""What echo, repetition and inversion time say."""

from __future__ import annotations

import re

import pytest

from fastbts.study.physics import weighting
from fastbts.study.series import Facts

SE, GR, IR, EP = ("SE",), ("GR",), ("SE", "IR"), ("EP",)


@pytest.mark.parametrize(
    ("te", "tr", "ti", "sequence", "kinds"),
    [
        (9, 600, None, SE, {"t1"}),  # spin echo
        (3, 1900, 900, ("GR", "IR"), {"t1"}),  # MPRAGE
        (3, 2300, None, GR, {"t1"}),  # MPRAGE whose header names no TI
        (3.4, 7.5, None, GR, {"t1"}),  # SPGR
        (8, 2500, 860, IR, {"t1"}),  # T1 FLAIR
        (99, 3500, None, SE, {"t2"}),
        (99, 5500, 0, SE, {"t2"}),
        (99, 5500, None, SE, {"flair", "t2"}),  # a FLAIR whose header names no inversion
        (402, 3200, 0, SE, {"t2"}),  # SPACE
        (93, 9000, 2500, IR, {"flair"}),
        (388, 5000, 1800, IR, {"flair"}),  # SPACE FLAIR
        (120, 11000, None, ("IR",), {"flair", "t2"}),  # a header without TI
        (100, 6000, None, (), {"flair", "t2"}),
        (50, 3000, None, SE, set()),  # between the protocols
        (None, 600, None, SE, set()),
        (0.093, 9, 2.5, IR, set()),  # in seconds
        (9000, 6e5, None, SE, set()),  # in microseconds
    ],
)
def test_weightings(te: float, tr: float, ti: float, sequence: tuple, kinds: set[str]) -> None:
    found = weighting(Facts(te_ms=te, tr_ms=tr, ti_ms=ti, sequence=sequence))
    assert found.kinds == kinds
    assert found.rejected is None


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (Facts(te_ms=85, tr_ms=4000, sequence=EP), "echo-planar"),
        (Facts(te_ms=85, tr_ms=4000, b_value=1000), "echo-planar"),
        (Facts(te_ms=20, tr_ms=28, sequence=GR), r"TE 20 ms: T2\*"),
        (Facts(te_ms=70, tr_ms=4000, ti_ms=150, sequence=IR), "TI 150 ms suppresses fat"),
        (Facts(te_ms=15, tr_ms=3000, sequence=SE), "proton density"),
    ],
)
def test_rejected(facts: Facts, why: str) -> None:
    assert re.search(why, weighting(facts).rejected or "")
