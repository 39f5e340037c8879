"""Evaluation from files to files, with an engine whose answer is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.ablation_tables import validation_table
from benchmarks.accuracy_tables import dice_table, groups_table, scores_table
from fastbts import MODALITIES, FastBTSError
from fastbts.metrics import region_dice
from tests.conftest import write_voxel_engine
from tests.training.commands import run
from training.evaluate import dropped


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_voxel_engine(
        tmp_path / "voxel.fbts", thresholds=(0.7, 0.7, 0.7), optional_modalities=MODALITIES
    )


def test_evaluate_writes_what_it_measured(
    voxel_cases: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [x for kind in ("json", "csv", "figure") for x in (f"--{kind}", tmp_path / f"x.{kind}")]
    options = ("--precision", "fp32", "--drop", "t1", "--drop", "flair", *files)
    assert run("evaluate", "--engine", engine, "--data", voxel_cases, *options) == 0
    scores = json.loads((tmp_path / "x.json").read_text())
    assert scores["mean"] == {"case": "mean (n=3)", "WT": 1.0, "TC": 1.0, "ET": 1.0, "mean": 1.0}
    assert scores["groups"] == {
        group: {"n": n, "WT": 1.0, "TC": 1.0, "ET": 1.0, "mean": 1.0}
        for group, n in (("HGG", 2), ("LGG", 1))
    }
    assert "mean (n=3) | 1.000" in dice_table(scores), "as benchmarks.make_tables reads it"
    assert (
        "The mean is 0.143 above the 0.8567 overall that the paper reports, on other data"
        in dice_table(scores)
    )
    assert scores["summary"]["mean"]["hd95_mm"] == {"mean": 0.0, "n": 3}
    assert scores["summary"]["ET"]["sensitivity"] == {"mean": 1.0, "n": 3}
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["case"], line["region"]) for line in lines[:4]] == [
        ("case0", "WT"),
        ("case0", "TC"),
        ("case0", "ET"),
        ("case1", "WT"),
    ]
    assert (tmp_path / "x.figure").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    errors = scores["calibration"]["ece"]
    assert errors["mean"] == pytest.approx(
        np.mean([errors[region] for region in ("WT", "TC", "ET")])
    )
    row = " | ".join(f"{errors[region]:.4f}" for region in ("WT", "TC", "ET", "mean"))
    assert f"| expected calibration error | {row} |" in scores_table(scores)
    assert "lesions found" not in scores_table(scores), "which were not scored"
    missing = scores["missing_modalities"]
    assert missing["t1"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0, "mean": 1.0}, (
        "which the engine does not read"
    )
    assert missing["flair"]["loss"] == pytest.approx(1 - missing["flair"]["dice"]["mean"]) != 0
    assert missing["flair"]["dice"]["mean"] == pytest.approx(
        np.mean([_dice_without_oedema(case) for case in sorted(voxel_cases.glob("case?"))])
    )
    printed = " ".join(capsys.readouterr().out.split())  # the console breaks lines
    assert "without flair: WT " in printed
    assert "HGG (n=2)" in printed
    assert "LGG (n=1)" in printed
    assert scores["balanced"]["mean"] == pytest.approx(scores["mean"]["mean"]), "one group of three"
    assert f"mean of the groups {scores['mean']['mean']:.4f}, its standard error 0." in printed
    assert f"expected calibration error: WT {errors['WT']:.5f}, TC " in printed


def test_table_of_groups_by_hand() -> None:
    def scores(mean: float) -> dict[str, object]:
        row = {"WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": mean}
        groups = {"LGG": {"n": 1, **row}, "HGG": {"n": 2, **row}}
        return {"cases": [{}, {}, {}], "groups": groups, "mean": row}

    pairs = (("HGG", 0.9), ("HGG", 0.7), ("LGG", 0.5))
    train = [{"group": group, "dice": {"WT": dice, "TC": dice}} for group, dice in pairs]
    made = groups_table(scores(0.8), scores(0.6), {"cases": {"train": train}})
    assert made.splitlines()[2:] == [
        "| high-grade gliomas | 2 | 0.900 | 0.800 | 0.700 | 0.800 | 0.600 | 0.800 (n=2) |",
        "| low-grade gliomas | 1 | 0.900 | 0.800 | 0.700 | 0.800 | 0.600 | 0.500 (n=1) |",
        "| all | 3 | 0.900 | 0.800 | 0.700 | 0.800 | 0.600 | 0.700 (n=3) |",
    ]


def test_table_of_scores_by_hand() -> None:
    three = {"mean": 0.5, "n": 3}
    found = {"hd95_mm": three, "lesion_recognition": three, "lesion_dice": {"mean": 0.25, "n": 2}}
    scores = {
        "cases": [{}, {}, {}],
        "summary": {
            "WT": found,
            "TC": found,
            "ET": found,
            "mean": {**found, "lesion_dice": {"mean": None, "n": 0}},
        },
        "missing_modalities": {"t2": {"dice": {"WT": 0.9, "TC": 0.8, "ET": 0.7, "mean": 0.8}}},
        "calibration": {
            "ece": {"WT": 0.008, "TC": 0.004, "ET": 0.003, "mean": 0.005},
            "ece_uncalibrated": {"WT": 0.009, "TC": 0.008, "ET": 0.007, "mean": 0.008},
            "best_temperatures": {"WT": 1.8, "TC": 2.4, "ET": 3.3},
            "temperatures": {"WT": 1.7, "TC": 2.2, "ET": 3.0},
            "bins": 15,
            "n_voxels": 8_640_000,
        },
    }
    assert scores_table(scores).splitlines()[2:] == [
        "| HD95, mm | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| lesions found, F1 | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| Dice of the lesions found | 0.250 (n=2) | 0.250 (n=2) | 0.250 (n=2) | - (n=0) |",
        "| Dice without t2 | 0.900 | 0.800 | 0.700 | 0.800 |",
        "| expected calibration error | 0.0080 | 0.0040 | 0.0030 | 0.0050 |",
        "| the same, without temperatures | 0.0090 | 0.0080 | 0.0070 | 0.0080 |",
        "| temperature of the engine | 1.70 | 2.20 | 3.00 | |",
        "| best temperature for these cases | 1.80 | 2.40 | 3.30 | |",
        "",
        "n = 3 cases. Calibration over 8.6 million brain voxels in 15 bins, each region "
        "separately.",
    ]


def test_table_of_the_ablation_says_what_text_is_meant() -> None:
    arm = {"steps": 2000, "n_seeds": 3, "WT": 0.8, "TC": 0.4, "ET": 0.2, "mean": 0.5}
    against = {"n_cases": 6, "difference": 0.01, "low": -0.01, "high": 0.03, "p": 0.5}
    arms = {"plain": arm, "all": arm, "all, CLIP text": arm}
    pairs = [
        {"name": "all", "base": "plain", **against},
        {"name": "all, CLIP text", "base": "all", **against},
    ]
    lines = validation_table({"arms": arms, "comparisons": pairs}).splitlines()
    assert lines[3].startswith("| all, orthonormal text | 2000 | 3 | 0.800 |")
    assert lines[4].endswith("| all, orthonormal text | +1.0 [-1.0, +3.0] | 0.500 |")


def _dice_without_oedema(folder: Path) -> float:
    labels = np.asarray(nib.load(folder / "x_seg.nii.gz").dataobj)
    return float(
        np.mean([*region_dice(np.where(labels == 2, 0, labels).astype(np.uint8), labels).values()])
    )


def test_only_what_training_hid_is_left_out() -> None:
    assert dropped([], True, ("flair", "t2")) == ["flair", "t2"]
    assert dropped(["t2"], False, ("flair", "t2")) == ["t2"]
    assert dropped([], False, ()) == []
    with pytest.raises(
        FastBTSError, match="leaving out t1: the engine can do without flair; train one with fusion"
    ):
        dropped(["t1"], False, ("flair",))
    with pytest.raises(
        FastBTSError, match="leaving out modalities: the engine can do without none"
    ):
        dropped([], True, ())
