"""Images that show a part of the brain, and references that cut it off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastbts
from fastbts import Geometry
from fastbts.phantom.study import SCANS, T2, coarser, write_study
from fastbts.study.align import Alignment
from fastbts.study.coverage import Coverage, coverage
from tests.study.made import FOUR, head, series, unmoved

GRID = Geometry((40, 40, 40), np.diag([-5.0, -5, 5, 1]))


def brain() -> np.ndarray:
    """A box of 100 x 100 x 150 mm that reaches the last slice."""
    mask = np.zeros(GRID.shape, bool)
    mask[10:30, 10:30, 10:] = True
    return mask


def seen(shape: tuple[int, int, int]) -> Coverage:
    """Coverage by a reference, and a FLAIR of 5 mm with so many voxels from the same corner."""
    given = {
        "flair": series("flair", spacing=(5, 5, 5), shape=shape),
        "t1ce": series("t1ce", spacing=(5, 5, 5), shape=GRID.shape),
    }
    return coverage(brain(), GRID, given, Alignment({}))


def test_a_part_outside_the_field_of_view_is_told() -> None:
    found = seen((40, 40, 34))
    assert found.shares == {"flair": pytest.approx(24 / 30, abs=0.01), "t1ce": 1.0}
    first, _ = found.warnings(FOUR, "t1ce")
    assert first.startswith("flair: dark fluid (")
    assert first.endswith("shows 80% of the brain; tumour outside its field of view may be missed")
    assert found.report()["brain_inside"]["t1ce"] == 1


def test_a_movement_counts() -> None:
    class Moved:
        matrix = np.eye(4)

    Moved.matrix[2, 3] = -30
    given = {"flair": series("flair", spacing=(5, 5, 5), shape=GRID.shape)}
    alignment = Alignment({"flair": Moved})  # type: ignore[dict-item]
    share = coverage(brain(), GRID, given, alignment).shares["flair"]
    assert share == pytest.approx(24 / 30, abs=0.01)


def test_a_reference_that_ends_in_the_brain() -> None:
    found = seen(GRID.shape)
    assert found.cut_cm2["top"] == pytest.approx(100)
    assert sum(found.cut_cm2.values()) == pytest.approx(100)
    (warning,) = found.warnings(FOUR, "t1ce")
    assert warning.endswith("cuts the brain off at the top (100 cm2): volumes are those inside it")


@pytest.mark.parametrize(("axes", "end"), [((0, 1, 2), "right"), ((1, 2, 0), "front")])
def test_ends_have_the_names_of_the_patient(axes: tuple[int, int, int], end: str) -> None:
    """The last voxels of an axis towards the right or the front, whichever axis that is."""
    affine = np.eye(4)
    affine[:3, :3] = 5 * np.eye(3)[:, list(axes)]
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    mask[15:, 8:12, 8:12] = True
    cuts = coverage(mask, Geometry(mask.shape, affine), {}, Alignment({})).cut_cm2
    assert {name for name, area in cuts.items() if area} == {end}


def test_a_study_with_a_short_t2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbts.study.grid.WORKING_MM", 5.0)
    made = write_study(head(), tmp_path, [replace(unmoved(s), every=1) for s in coarser(SCANS, 5)])
    files = made.files[T2.text]
    for path in files[2 * len(files) // 3 :]:
        path.unlink()
    study = fastbts.read_study(tmp_path, register=False, strip=False)
    assert any(w.startswith("t2: T2 TSE TRA 5mm") and "of the brain" in w for w in study.warnings)
    assert study.report["coverage"]["brain_inside"]["t2"] < 0.8
