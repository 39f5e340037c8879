"""Real cases that the network was not trained on: files in, labels on the original grid out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import EngineSpec, Segmenter, SegmenterOptions, load_engine, read_case
from fastbts.build.parity import labelled_cases, measure_parity
from fastbts.engine.file import pack_engine, parse_engine_file, read_engine_file
from fastbts.engine.load import default_engine_path, open_engine
from fastbts.engine.precision import emulated
from fastbts.metrics import region_dice
from fastbts.pipeline.normalize import normalize
from fastbts.scores.tables import dice_rows, mean_row
from training.data.cases import read_labels
from training.evaluate import dice_without, evaluate

pytestmark = pytest.mark.data

PUBLISHED = Path(__file__).parents[1] / "benchmarks/results/dice-val.json"
# For the first six validation cases, which every layout of the data has.
FIRST = {
    *("Brats18_2013_3_1", "Brats18_CBICA_ABM_1", "Brats18_CBICA_AMH_1", "Brats18_CBICA_ASV_1"),
    *("Brats18_TCIA03_265_1", "Brats18_TCIA10_628_1"),
}
LEAST_DICE = {"WT": 0.88, "TC": 0.75, "ET": 0.69}
LEAST_MEAN_DICE = 0.80  # the project's target for a training on the CPU
# A crop size of the recipe `clip-light-long`, with fewer voxels than each case. Most cases have no
# more than the engine's own window, so that nothing would slide.
WINDOW = (128, 160, 128)


@pytest.fixture(scope="session")
def val_scores(shipped_segmenter: Segmenter, val_cases: list[Path]) -> list[dict[str, float]]:
    one_pass = Segmenter(
        shipped_segmenter.engine, options=SegmenterOptions(mode="one-pass"), warm_up=False
    )
    return dice_rows(evaluate(one_pass, val_cases).rows)


def test_dice_on_validation_cases(val_scores: list[dict[str, Any]]) -> None:
    first = [row for row in val_scores if row["case"] in FIRST]
    mean = mean_row(first)
    assert len(first) == 6
    for region, least in LEAST_DICE.items():
        assert mean[region] >= least, (region, first)
    assert mean["mean"] >= LEAST_MEAN_DICE, first


def test_dice_on_validation_cases_is_what_is_published(val_scores: list[dict[str, Any]]) -> None:
    """In any precision: the loss that int8 may have is allowed."""
    published = {row["case"]: row for row in json.loads(PUBLISHED.read_text())["cases"]}
    known = [row for row in val_scores if row["case"] in published]
    assert known, "none of these cases is a published one"
    for row in known:
        assert row["mean"] >= published[row["case"]]["mean"] - 0.01, row
    assert mean_row(known)["mean"] == pytest.approx(
        fmean(published[row["case"]]["mean"] for row in known), abs=0.005
    )


def test_one_pass_is_not_worse_than_sliding(
    val_cases: list[Path], val_scores: list[dict[str, float]]
) -> None:
    engine = load_engine()
    engine.spec = replace(engine.spec, window=WINDOW)
    sliding = Segmenter(engine, options=SegmenterOptions(mode="sliding"), warm_up=False)
    dice = []
    for case in val_cases:
        result = sliding.predict(read_case(case))
        assert result.report["windows"]["count"] > 1, case.name
        dice.append(fmean(region_dice(result.labels, read_labels(case)).values()))
    assert mean_row(val_scores)["mean"] >= fmean(dice) - 0.002


def test_whole_tumour_is_found_without_flair(
    shipped_segmenter: Segmenter, val_cases: list[Path]
) -> None:
    tolerant = Segmenter(
        shipped_segmenter.engine, options=SegmenterOptions(allow_missing=True), warm_up=False
    )
    first = [case for case in val_cases if case.name in FIRST]
    assert dice_without(tolerant, first, "flair")["WT"] >= 0.75


def test_backends_agree_on_a_real_case(val_cases: list[Path]) -> None:
    engines = [load_engine(precision="fp32", backend=name) for name in ("openvino", "onnxruntime")]
    tensor = normalize(read_case(val_cases[0]), engines[0].spec).tensor[None]
    one, other = (engine.infer(tensor) for engine in engines)
    assert np.abs(one - other).max() <= 1e-3
    assert ((one > 0) == (other > 0)).mean() >= 0.99999


def test_saved_on_the_input_grid(
    shipped_segmenter: Segmenter, val_cases: list[Path], tmp_path: Path
) -> None:
    case = next(c for c in val_cases if c.name.endswith("AMH_1"))
    result = shipped_segmenter.predict(read_case(case))
    saved, given = (
        nib.load(result.save(tmp_path / "seg.nii.gz")[0]),
        nib.load(case / f"{case.name}_flair.nii.gz"),
    )
    assert saved.shape == given.shape == (240, 240, 155)
    for of in ("get_qform", "get_sform"):
        (got, code), (wanted, wanted_code) = (
            getattr(saved.header, of)(coded=True),
            getattr(given.header, of)(coded=True),
        )
        assert code == wanted_code
        if wanted_code:
            np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert region_dice(np.asarray(saved.dataobj), read_labels(case))["WT"] > 0.8


def test_storage_order_changes_no_label(
    shipped_segmenter: Segmenter, val_cases: list[Path]
) -> None:
    """Labels of the same case, stored with other axes, are equal to the bit."""
    volume = read_case(val_cases[0])
    turn = np.zeros((4, 4))
    turn[[0, 1, 2, 3], [1, 2, 0, 3]] = 1  # new (i, j, k) run along the old (k, i, j)
    turned = replace(
        volume, data=volume.data.transpose(0, 3, 1, 2), affine=volume.affine @ turn, header=None
    )
    labels, other = (shipped_segmenter.predict(v).labels for v in (volume, turned))
    np.testing.assert_array_equal(other, labels.transpose(2, 0, 1))


def test_rounded_networks_keep_the_dice(val_cases: list[Path]) -> None:
    """What a GPU computes in fp16 and bf16, emulated: measured 3e-5 and 3e-4 of Dice at most."""
    file = read_engine_file(default_engine_path())
    exact = load_engine(precision="fp32", backend="onnxruntime")
    case = labelled_cases(val_cases[:1], [read_case(val_cases[0])], EngineSpec())
    for precision in ("fp16", "bf16"):
        content = emulated(file, precision)
        rounded = parse_engine_file(pack_engine(file.spec, {"model.onnx": content}), precision)
        engine = open_engine(rounded, backend="onnxruntime", precision="fp32")
        parity = measure_parity(exact, engine, case)
        assert max(map(abs, parity["dice_change"].values())) <= 0.002, (precision, parity)
        assert parity["label_agreement"] >= 0.9999
        engine.close()
