"""Tuning: the written engine, and its rules by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts import EngineSpec, Geometry, Segmenter, read_case
from fastbts.engine.file import read_engine_file
from fastbts.metrics import region_dice
from fastbts.placement import Placement
from tests.conftest import write_voxel_engine
from tests.training.commands import run
from training.data.cases import read_labels
from training.scores.groups import balanced_mean
from training.tune import STRAY_CORE_MM3, THRESHOLDS, VOLUMES_MM3, TuningCase, accepted, best, infer


def test_tune_writes_the_engine_that_it_measured(voxel_cases: Path, tmp_path: Path) -> None:
    engine, data = write_voxel_engine(tmp_path / "plain.fbts"), ("--data", voxel_cases)
    before = read_engine_file(engine)
    content = bytes(before.payloads["model.onnx"])
    assert run("tune", engine, *data, "--precision", "fp32") == 0
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
        (segmenter.predict(read_case(f)).labels, read_labels(f))
        for f in sorted(voxel_cases.glob("case?"))
    ]
    for region in ("WT", "TC", "ET"):
        measured = np.mean([region_dice(*pair)[region] for pair in labels])
        assert measured == pytest.approx(record["after"]["dice"][region]), (
            "the product gives what the record says"
        )
    again = tmp_path / "again.fbts"
    assert run("tune", engine, *data, "--precision", "fp32", "--out", again) == 0
    assert read_engine_file(again).spec == file.spec, "the engine's own settings do not matter"


def test_thresholds_move_to_those_of_the_labels(voxel_cases: Path, tmp_path: Path) -> None:
    segmenter = Segmenter(
        write_voxel_engine(tmp_path / "plain.fbts"), precision="fp32", warm_up=False
    )
    cases, _ = infer(segmenter, sorted(voxel_cases.glob("case?")))
    spec = segmenter.spec
    for region in (2, 1, 0):
        spec = best(
            cases,
            spec,
            [replace(spec, thresholds=_moved(spec, region, t)) for t in THRESHOLDS],
        )
    assert spec.thresholds == (0.7, 0.7, 0.7)
    assert (
        best(cases, spec, [replace(spec, thresholds=_moved(spec, 0, t)) for t in THRESHOLDS])
        == spec
    )


def _moved(spec: EngineSpec, region: int, threshold: float) -> tuple[float, ...]:
    return tuple(threshold if i == region else t for i, t in enumerate(spec.thresholds))


def blocks(et: int, reference_et: int, stray: bool = False) -> TuningCase:
    """A core of 6^3 voxels with cubes of predicted and of reference ET, by their sides.

    `stray` adds a part of WT of four voxels elsewhere.
    """
    logits, reference = np.full((3, 16, 16, 16), -5, np.float32), np.zeros((16, 16, 16), np.uint8)
    logits[:2, 2:8, 2:8, 2:8], reference[2:8, 2:8, 2:8] = 5, 1
    predicted, labelled = slice(2, 2 + et), slice(2, 2 + reference_et)
    logits[2, predicted, predicted, predicted], reference[labelled, labelled, labelled] = 5, 4
    logits[0, 14, 14, 12:] = 5 if stray else -5
    # Network axes are reversed; cubes on the diagonal are the same in both.
    placement = Placement(((0, 16),) * 3, (16, 16, 16), (16, 16, 16))
    return TuningCase(logits, placement, Geometry((16, 16, 16), np.eye(4)), reference)


def test_small_et_rule_by_hand() -> None:
    spec = EngineSpec()
    rules = [replace(spec, min_et_mm3=mm3) for mm3 in VOLUMES_MM3]
    false, true = blocks(et=2, reference_et=0), blocks(et=3, reference_et=3)
    assert (false.dice(spec)["ET"], true.dice(spec)["ET"]) == (0, 1)
    assert best([false, false, false, true], spec, rules).min_et_mm3 == 10, (
        "8 mm3 go, 27 mm3 stay; the smallest of equals"
    )
    assert best([true, true], spec, rules) == spec
    assert (
        best([blocks(et=3, reference_et=0), blocks(et=2, reference_et=2)], spec, rules) == spec
    ), "no rule that costs a case"


def test_small_part_rule_by_hand() -> None:
    spec = EngineSpec()
    rules = [replace(spec, min_part_mm3=mm3) for mm3 in VOLUMES_MM3]
    stray = [blocks(3, 3, stray=True)] * 2
    assert best([*stray, blocks(3, 3)], spec, rules).min_part_mm3 == 10
    assert best([blocks(3, 3)], spec, rules) == spec


def ringed(is_stray: bool) -> TuningCase:
    """Core of 10^3 voxels in a ring of enhancing tumour, and of 10^3 beside it: oedema, or core."""
    logits, reference = np.full((3, 24, 24, 24), -5, np.float32), np.zeros((24,) * 3, np.uint8)
    logits[0], reference[...] = 5, 2
    ring, inner, beside = slice(1, 13), slice(2, 12), slice(13, 23)
    logits[1:, ring, ring, ring], reference[ring, ring, ring] = 5, 4
    logits[2, inner, inner, inner], reference[inner, inner, inner] = -5, 1
    logits[1, beside, beside, beside] = 5
    reference[beside, beside, beside] = 2 if is_stray else 1
    placement = Placement(((0, 24),) * 3, (24, 24, 24), (24, 24, 24))
    return TuningCase(logits, placement, Geometry((24, 24, 24), np.eye(4)), reference)


def test_stray_core_rule_by_hand() -> None:
    spec = EngineSpec()
    rule = replace(spec, stray_core_mm3=STRAY_CORE_MM3)
    assert best([ringed(is_stray=True)] * 3, spec, [rule]) == rule
    assert best([ringed(is_stray=True), ringed(is_stray=False)], spec, [rule]) == spec


def test_what_is_accepted_by_hand() -> None:
    one = ["HGG"] * 5
    assert accepted(np.array([0.010, 0.012, 0.011, 0.01, 0.01]), one)
    assert accepted(np.array([0.010, 0.012, 0.011, 0.01, -0.001]), one), "4 of 5 are not worse"
    assert not accepted(np.array([0.010, 0.012, 0.011, -0.001, -0.001]), one)
    assert not accepted(np.array([0.1, 0.0, 0.0, 0.0, 0.0]), one), "mean 0.02, its error 0.02"
    assert not accepted(np.array([0.0009] * 5), one), "not worth it"
    assert not accepted(np.array([0.2]), ["HGG"]), "one case says nothing about consistency"


def test_groups_count_the_same() -> None:
    values = np.array([0.8, 0.9, 0.7, 0.5, 0.7])
    groups = ["HGG", "HGG", "2021", "LGG", "LGG"]
    # The one case of 2021 counts with HGG: means 0.8 and 0.6, errors 0.1 / 3**0.5 and 0.1.
    mean, error = balanced_mean(values, groups)
    assert mean == pytest.approx(0.7)
    assert error == pytest.approx((0.01 / 3 + 0.01) ** 0.5 / 2)
