"""Confidence against true Dice: correlations, limits, healthy brains, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastbts import Volume
from tests.conftest import write_voxel_engine
from tests.training.commands import run
from training.confidence import flagged, limits, mirrored_half, rank_correlation


def rows_of(pairs: list[tuple[float, float]]) -> list[dict[str, dict[str, float]]]:
    return [{"confidence": {"WT": c}, "dice": {"WT": d}} for c, d in pairs]


def test_rank_correlation_is_about_order_only() -> None:
    assert rank_correlation(rows_of([(0.1, 0.2), (0.5, 0.21), (0.6, 0.9)])) == {"WT": 1.0}
    assert rank_correlation(rows_of([(0.1, 0.9), (0.5, 0.3), (0.6, 0.2)])) == {"WT": -1.0}


def test_a_limit_flags_at_most_one_in_20_good_cases() -> None:
    good = [(0.5 + 0.02 * i, 0.9) for i in range(20)]
    assert limits(rows_of([*good, (0.9, 0.1)])) == {"WT": 0.5}, "0.52 is not below it"
    assert limits(rows_of([(0.31, 0.85), *good[1:]])) == {"WT": 0.5}
    assert limits(rows_of([(0.31, 0.85), (0.2, 0.1)])) == {"WT": 0.3}


def test_flagged_cases_are_counted() -> None:
    rows = rows_of([(0.4, 0.2), (0.45, 0.9), (0.8, 0.9), (0.9, 0.7)])
    assert flagged(rows, {"WT": 0.5})["WT"] == {
        "flagged": 2, "of": 4, "flagged_good": 1,
        "mean_dice_flagged": 0.55, "mean_dice_others": 0.8,
    }  # fmt: skip
    assert flagged(rows, {"WT": 0.0})["WT"]["mean_dice_flagged"] is None


@pytest.mark.parametrize("side", [0, 1])
def test_half_of_a_head_is_mirrored_onto_the_other(side: int) -> None:
    """Stored LPS: i runs to the patient's left, so the left half has the larger i."""
    data = np.zeros((1, 9, 3, 3), np.int16)
    data[0, 1:8] = np.arange(1, 8)[:, None, None]
    labels = np.zeros((9, 3, 3), np.uint8)
    labels[6, 1, 1] = 4
    volume = Volume(data, np.diag([-1.0, -1.0, 1.0, 1.0]), ("flair",))
    healthy, tumour_ml = mirrored_half(volume, labels, side)
    left, right = [0, 7, 6, 5, 4, 5, 6, 7, 0], [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert healthy.data[0, :, 1, 1].tolist() == (left, right)[side]
    assert tumour_ml == pytest.approx((0.001, 0.0)[side])
    assert volume.data[0, 7, 1, 1] == 7, "the case itself is unchanged"


def test_the_command_writes_what_it_measured(voxel_cases: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = sorted(folder.name for folder in voxel_cases.iterdir() if folder.is_dir())
    for name in names:
        (data / name).symlink_to(voxel_cases / name)
    splits = zip(names, ("train", "train", "val"), strict=True)
    lines = [f"{name},{split},HGG" for name, split in splits]
    (data / "cases.csv").write_text("\n".join(["case,split,group", *lines]) + "\n")
    engine = write_voxel_engine(tmp_path / "voxel.fbts", thresholds=(0.7, 0.7, 0.7))
    target = tmp_path / "confidence.json"
    assert run("confidence", "--engine", engine, "--data", data, "--json", target) == 0
    scores = json.loads(target.read_text())
    assert [len(scores["cases"][split]) for split in ("val", "train")] == [1, 2]
    assert all(case["dice"]["WT"] == 1.0 for case in scores["cases"]["train"])
    assert set(scores["limits"]) == {"WT", "TC", "ET"}
