"""Scores that a person can check, then what must hold for any masks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance

from fastbts.labels import REGION_LABELS
from fastbts.metrics import region_dice
from training.scores.regions import MISSED_HD95_MM, region_scores
from training.scores.results import dice_rows, group_means, mean_row, summary, write_csv
from training.scores.surface import hd95, surface_voxels

MM = (1.0, 1.0, 1.0)
masks = arrays(np.bool_, (5, 6, 7)).filter(lambda mask: bool(mask.any()))


def brute_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Every pair of surface voxels, the surface voxel by voxel."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        return (
            np.array(
                [
                    p
                    for p in np.argwhere(mask)
                    if not all(padded[tuple(p + 1 + step)] for step in steps)
                ]
            )
            * spacing
        )

    distances = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=2)
    return max(np.percentile(distances.min(axis), 95) for axis in (0, 1))


def line(*voxels: int) -> np.ndarray:
    mask = np.zeros((3, 3, 30), bool)
    mask[1, 1, list(voxels)] = True
    return mask


def test_hd95_by_hand() -> None:
    assert hd95(line(5), line(9), (1, 1, 2.5)) == 10
    assert hd95(line(5), line(5), MM) == 0
    # From 1..20 to 1..21 nothing is far; of the way back, 20 distances are 0 and one is 1: the 95th percentile is the 20th.
    assert hd95(line(*range(1, 21)), line(*range(1, 22)), MM) == 0
    assert hd95(line(*range(1, 11)), line(*range(1, 12)), MM) == pytest.approx(0.5), (
        "between the 10th (0) and the 11th (1)"
    )


def test_surface_by_hand() -> None:
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    assert len(surface_voxels(cube)) == 5**3 - 3**3
    assert len(surface_voxels(np.ones((3, 3, 3), bool))) == 26, (
        "the image's border counts as outside"
    )
    np.testing.assert_array_equal(surface_voxels(line(4)), [[1, 1, 4]])


def test_hd95_refuses_empty_masks() -> None:
    with pytest.raises(ValueError, match="a mask is empty"):
        hd95(line(1), line(), MM)


@settings(max_examples=30, deadline=None)
@given(masks, masks, st.tuples(*[st.floats(0.5, 5)] * 3))
def test_hd95_properties(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> None:
    distance = hd95(a, b, spacing)
    assert distance == pytest.approx(brute_hd95(a, b, spacing))
    assert distance == pytest.approx(hd95(b, a, spacing)), "symmetry"
    x, y, z = spacing
    assert hd95(a, b, (2 * x, 2 * y, 2 * z)) == pytest.approx(2 * distance)
    assert hd95(a.T, b.T, (z, y, x)) == pytest.approx(distance)
    assert hd95(a, a, spacing) == 0


@settings(max_examples=10, deadline=None)
@given(masks, masks)
def test_hd95_is_that_of_monai(a: np.ndarray, b: np.ndarray) -> None:
    spacing = (1.0, 2.0, 3.0)
    one, two = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
    theirs = compute_hausdorff_distance(
        one, two, include_background=True, percentile=95, spacing=spacing
    )
    assert hd95(a, b, spacing) == pytest.approx(theirs.item(), rel=1e-5)


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


def rows() -> list[dict[str, Any]]:
    table = {"a": (0.9, 0.8, 0.7, 1.0), "b": (0.5, 0.4, 0.3, None)}
    return [
        {"case": case, "region": region, "dice": dice, "hd95_nonempty_mm": distance}
        for case, (*of_regions, distance) in table.items()
        for region, dice in zip(REGION_LABELS, of_regions, strict=True)
    ]


def test_means_by_hand() -> None:
    wide = dice_rows(rows())
    assert wide[0] == {"case": "a", "WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": pytest.approx(0.8)}
    assert mean_row(wide) == {
        "case": "mean (n=2)",
        **{k: pytest.approx(v) for k, v in {"WT": 0.7, "TC": 0.6, "ET": 0.5, "mean": 0.6}.items()},
    }
    assert group_means(
        [*wide, {**wide[0], "case": "c", "WT": 0.1}], {"a": "HGG", "b": "", "c": "HGG"}
    ) == {
        "HGG": {
            "n": 2,
            **{
                k: pytest.approx(v)
                for k, v in {"WT": 0.5, "TC": 0.8, "ET": 0.7, "mean": 0.8}.items()
            },
        }
    }
    means = summary(rows())
    assert means["WT"] == {
        "dice": {"mean": pytest.approx(0.7), "n": 2},
        "hd95_nonempty_mm": {"mean": 1.0, "n": 1},
    }
    assert means["mean"]["dice"] == {"mean": pytest.approx(0.6), "n": 3}
    undefined = summary([{**row, "hd95_nonempty_mm": None} for row in rows()])
    assert (
        undefined["WT"]["hd95_nonempty_mm"]
        == undefined["mean"]["hd95_nonempty_mm"]
        == {"mean": None, "n": 0}
    )


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", rows())
    with (tmp_path / "x.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 6
    assert lines[4] == {"case": "b", "region": "TC", "dice": "0.4", "hd95_nonempty_mm": ""}


def test_lesions_by_hand() -> None:
    """Three lesions, one of them found; one part too many."""
    pytest.importorskip("panoptica", reason="lesion-wise scores come with the extra 'evaluate'")
    from training.scores.lesions import lesion_scores

    reference, predicted = np.zeros((2, 30, 30, 30), np.uint8)
    reference[2:8, 2:8, 2:8] = reference[20:24, 20:24, 20:24] = reference[28, 28, 28] = 2
    predicted[2:8, 2:8, 4:8] = predicted[15:17, 3:5, 3:5] = 2
    scores = lesion_scores(predicted, reference)
    assert scores["WT"] == {
        "lesions_reference": 3, "lesions_predicted": 2, "lesions_found": 1,
        "lesion_recognition": pytest.approx(2 / (3 + 2)), "lesion_dice": pytest.approx(2 * 4 / (4 + 6)),
    }  # fmt: skip
    assert scores["ET"]["lesion_recognition"] is scores["ET"]["lesion_dice"] is None
    assert region_dice(predicted, reference)["ET"] == 1
