"""Evaluation and tuning from files to files, with an engine whose answer is known."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from benchmarks.make_tables import ablation_table, dice_table, scores_table
from fastbts import MODALITIES, EngineSpec, FastBTSError, Geometry, Segmenter, read_case
from fastbts.engine.file import read_engine_file
from fastbts.metrics import region_dice
from fastbts.placement import Placement
from tests.conftest import write_voxel_engine
from tests.test_segmenter import expected_labels
from tests.training import commands
from training import evaluate, tune
from training.tune import THRESHOLDS, VOLUMES_MM3, TuningCase, best, harmless, steady


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of noise, labelled as VoxelEngine would label them from p = 0.7 on."""
    root = tmp_path_factory.mktemp("data")
    for seed in range(3):
        images = np.zeros((4, 24, 26, 20), np.int16)
        images[:, 3:22, 2:23, 1:19] = np.random.default_rng(seed).integers(50, 900, (4, 19, 21, 18))
        folder = root / f"case{seed}"
        folder.mkdir()
        labels = expected_labels(images, at=1 + np.log(0.7 / 0.3) / 4)
        for name, voxels in zip((*MODALITIES, "seg"), (*images, labels), strict=True):
            nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(
                folder / f"x_{name}.nii.gz"
            )
    (root / "cases.csv").write_text(
        "case,split,group\ncase0,val,HGG\ncase1,val,LGG\ncase2,val,HGG\n"
    )
    return root


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_voxel_engine(
        tmp_path / "voxel.fbts", thresholds=(0.7, 0.7, 0.7), optional_modalities=MODALITIES
    )


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)  # which is restored
    assert commands.run(module.__name__.removeprefix("training."), *arguments) == 0


def test_evaluate_writes_what_it_measured(
    data: Path,
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [x for kind in ("json", "csv", "figure") for x in (f"--{kind}", tmp_path / f"x.{kind}")]
    run(
        evaluate,
        monkeypatch,
        "--engine",
        engine,
        "--data",
        data,
        "--precision",
        "fp32",
        "--drop",
        "t1",
        "--drop",
        "flair",
        *files,
    )
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
    with (tmp_path / "x.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
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
        "which the engine does not look at"
    )
    assert missing["flair"]["loss"] == pytest.approx(1 - missing["flair"]["dice"]["mean"]) != 0
    assert missing["flair"]["dice"]["mean"] == pytest.approx(
        np.mean([_dice_without_oedema(case) for case in sorted(data.glob("case?"))])
    )
    printed = " ".join(capsys.readouterr().out.split())  # the console breaks lines
    assert "without flair: WT " in printed
    assert "HGG (n=2)" in printed
    assert "LGG (n=1)" in printed
    assert f"expected calibration error: WT {errors['WT']:.5f}, TC " in printed


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
            "best_temperature": {"WT": 1.8, "TC": 2.4, "ET": 3.3},
            "temperature": 2.2,
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
        "| best calibration temperature | 1.80 | 2.40 | 3.30 | |",
        "",
        "n = 3 cases. Calibration over 8.6 million brain voxels in 15 bins, each region separately, "
        "at the",
        "engine's temperature of 2.20.",
    ]


def test_table_of_the_ablation_says_what_text_is_meant() -> None:
    arm = {"n_seeds": 3, "WT": 0.8, "TC": 0.4, "ET": 0.2, "mean": 0.5}
    against = {"n_cases": 6, "difference": 0.01, "low": -0.01, "high": 0.03, "p": 0.5}
    arms = {"plain": arm, "all": arm, "all, CLIP text": arm}
    pairs = [
        {"name": "all", "base": "plain", **against},
        {"name": "all, CLIP text", "base": "all", **against},
    ]
    lines = ablation_table({"arms": arms, "comparisons": pairs}).splitlines()
    assert lines[3].startswith("| all, orthonormal text | 3 | 0.800 |")
    assert lines[4].endswith("| all, orthonormal text | +1.0 [-1.0, +3.0] | 0.500 |")


def _dice_without_oedema(folder: Path) -> float:
    labels = np.asarray(nib.load(folder / "x_seg.nii.gz").dataobj)
    return float(
        np.mean([*region_dice(np.where(labels == 2, 0, labels).astype(np.uint8), labels).values()])
    )


def test_only_what_training_hid_is_left_out() -> None:
    assert evaluate.dropped([], True, ("flair", "t2")) == ["flair", "t2"]
    assert evaluate.dropped(["t2"], False, ("flair", "t2")) == ["t2"]
    assert evaluate.dropped([], False, ()) == []
    with pytest.raises(
        FastBTSError, match="leaving out t1: the engine can do without flair; train one with fusion"
    ):
        evaluate.dropped(["t1"], False, ("flair",))
    with pytest.raises(
        FastBTSError, match="leaving out modalities: the engine can do without none"
    ):
        evaluate.dropped([], True, ())


def test_tune_writes_the_engine_that_it_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = write_voxel_engine(tmp_path / "plain.fbts")
    before = read_engine_file(engine)
    content = bytes(before.payloads["model.onnx"])
    run(tune, monkeypatch, engine, "--data", data, "--precision", "fp32")
    file = read_engine_file(engine)
    assert bytes(file.payloads["model.onnx"]) == content
    record = file.manifest["tuned"]
    assert (record["n_cases"], record["split"], record["precision"]) == (3, "val", "fp32")
    assert file.spec == replace(
        before.spec, **{k: getattr(file.spec, k) for k in record["after"]["settings"]}
    )
    assert record["after"]["dice"]["mean"] > record["before"]["dice"]["mean"] + 0.01
    assert record["after"]["nll"] < record["before"]["nll"]
    assert [*record["after"]["ece"]] == ["WT", "TC", "ET", "mean"]
    segmenter = Segmenter(engine, precision="fp32", warm_up=False)
    labels = [
        (segmenter.predict(read_case(f)).labels, evaluate.read_labels(f))
        for f in sorted(data.glob("case?"))
    ]
    for region in ("WT", "TC", "ET"):
        measured = np.mean([region_dice(*pair)[region] for pair in labels])
        assert measured == pytest.approx(record["after"]["dice"][region]), (
            "the product gives what the record says"
        )
    run(
        tune,
        monkeypatch,
        engine,
        "--data",
        data,
        "--precision",
        "fp32",
        "--out",
        tmp_path / "again.fbts",
    )
    assert read_engine_file(tmp_path / "again.fbts").spec == file.spec, "tuning starts afresh"


def test_thresholds_move_to_where_the_labels_are(data: Path, tmp_path: Path) -> None:
    segmenter = Segmenter(
        write_voxel_engine(tmp_path / "plain.fbts"), precision="fp32", warm_up=False
    )
    cases, _ = tune.infer(segmenter, sorted(data.glob("case?")))
    spec = segmenter.spec
    for region in (2, 1, 0):
        spec = best(
            cases,
            spec,
            [replace(spec, thresholds=_moved(spec, region, t)) for t in THRESHOLDS],
            steady,
        )
    assert spec.thresholds == (0.7, 0.7, 0.7)
    assert (
        best(
            cases, spec, [replace(spec, thresholds=_moved(spec, 0, t)) for t in THRESHOLDS], steady
        )
        == spec
    )


def _moved(spec: EngineSpec, region: int, threshold: float) -> tuple[float, ...]:
    return tuple(threshold if i == region else t for i, t in enumerate(spec.thresholds))


def blocks(et: int, truth: int, stray: bool = False) -> TuningCase:
    """A core of 6^3 voxels with a cube of predicted ET (side `et`) and of true ET (side `truth`), and perhaps a lone voxel of WT."""
    logits, reference = np.full((3, 16, 16, 16), -5, np.float32), np.zeros((16, 16, 16), np.uint8)
    logits[:2, 2:8, 2:8, 2:8], reference[2:8, 2:8, 2:8] = 5, 1
    (
        logits[2, 2 : 2 + et, 2 : 2 + et, 2 : 2 + et],
        reference[2 : 2 + truth, 2 : 2 + truth, 2 : 2 + truth],
    ) = 5, 4
    logits[0, 14, 14, 12:] = 5 if stray else -5
    whole = ((0, 16), (0, 16), (0, 16))
    # Network axes run the other way round; cubes on the diagonal are the same in both.
    return TuningCase(
        logits,
        Placement(whole, (16, 16, 16), (16, 16, 16)),
        Geometry((16, 16, 16), np.eye(4)),
        reference,
    )


def test_small_et_rule_by_hand() -> None:
    spec = EngineSpec()
    rules = [replace(spec, min_et_mm3=mm3) for mm3 in VOLUMES_MM3]
    false, true = blocks(et=2, truth=0), blocks(et=3, truth=3)
    assert (false.dice(spec)["ET"], true.dice(spec)["ET"]) == (0, 1)
    assert best([false, true], spec, rules, harmless).min_et_mm3 == 10, (
        "8 mm3 go, 27 mm3 stay; the smallest of equals"
    )
    assert best([true, true], spec, rules, harmless) == spec
    assert best([blocks(et=3, truth=0), blocks(et=2, truth=2)], spec, rules, harmless) == spec, (
        "no rule that costs a case"
    )


def test_small_part_rule_by_hand() -> None:
    spec = EngineSpec()
    rules = [replace(spec, min_part_mm3=mm3) for mm3 in VOLUMES_MM3]
    assert best([blocks(3, 3, stray=True), blocks(3, 3)], spec, rules, harmless).min_part_mm3 == 10
    assert best([blocks(3, 3)], spec, rules, harmless) == spec


def test_rules_of_consistency_by_hand() -> None:
    assert steady(np.array([0.010, 0.012, 0.011]))
    assert not steady(np.array([0.1, -0.05, 0.02])), "mean 0.023, standard error 0.043"
    assert not steady(np.array([0.0009] * 3)), "not worth it"
    assert not steady(np.array([0.2])), "one case says nothing about consistency"
    assert harmless(np.array([0, 0, 0.3]))
    assert not harmless(np.array([0.3, -0.006]))
    assert not harmless(np.array([0.0, 0.001]))
