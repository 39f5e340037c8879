"""A finder is trained, exported, put into an engine, and compared with the whole brain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.focus_tables import focus_table
from fastbts import EngineSpec, FastBTSError
from fastbts.build.finder import add_finder
from fastbts.engine.file import read_engine_file
from tests.conftest import write_voxel_engine
from tests.training.commands import run
from training.config import RECIPES
from training.data.cases import TrainingCase, _blocks, prepare_case
from training.focus import summary, voxels

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_from_the_recipe_to_the_figures(phantoms: Path, tmp_path: Path) -> None:
    """With the recipe's settings, but a narrow network and small crops."""
    values = yaml.safe_load((RECIPES / "finder.yaml").read_text())
    values["model"]["widths"] = [4, 8, 8, 8]
    values |= {"stages": [{"steps": 2, "crop": [32, 32, 32], "batch": 2}], "validate_every": 2}
    recipe, trained = tmp_path / "finder.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("train", "--recipe", recipe, "--data", phantoms, "--out", trained) == 0
    small, engine = tmp_path / "finder.fbts", tmp_path / "engine.fbts"
    assert run("export", trained / "last.ckpt", "-o", small) == 0
    spec = read_engine_file(small).spec
    assert (spec.name, spec.spacing_mm, spec.stride) == ("fastbts-finder", 2.0, 16)
    assert (spec.region_labels, spec.thresholds) == ({"WT": (1, 2, 4)}, (0.2,))
    about = add_finder(write_voxel_engine(tmp_path / "plain.fbts"), engine, small)
    assert about["training"]["steps"] == 2

    scores, options = tmp_path / "focus.json", ("--engine", engine, "--data", phantoms)
    assert run("focus", *options, "--rounds", 1, "--json", scores) == 0
    results = json.loads(scores.read_text())
    assert [*results["summary"]] == ["val", "train"]
    assert [row["case"] for row in results["cases"]["train"]] == ["case1", "case2"]
    for row in results["cases"]["val"]:
        assert {*row["dice"]} == {*row["ms"]} == {"whole", "focus"}
    assert "| validation | 1 |" in focus_table(results)


def test_cases_at_half_of_the_resolution(
    phantoms: Path, cases: list[TrainingCase], tmp_path: Path
) -> None:
    spec = EngineSpec(regions=("WT",), labels=((1, 2, 4),), thresholds=(0.2,), spacing_mm=2.0)
    coarse, fine = prepare_case(phantoms / "case1", spec, tmp_path), cases[0]
    d, h, w = fine.label.shape
    assert coarse.label.shape == (-(-d // 2), -(-h // 2), -(-w // 2))
    assert coarse.image.shape == (4, *coarse.label.shape)
    block = fine.image[:, 10:12, 20:22, 14:16].astype(np.float64).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(coarse.image[:, 5, 10, 7], block, atol=2e-3)
    for z, y, x in np.argwhere(fine.label):
        assert coarse.label[z // 2, y // 2, x // 2] >= fine.label[z, y, x]
    assert (coarse.label > 0).sum() * 8 >= (fine.label > 0).sum()


def test_other_spacings_are_refused(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(FastBTSError, match=r"expected 1\.75 mm for training; resample"):
        prepare_case(phantoms / "case1", EngineSpec(spacing_mm=1.75), tmp_path)


def test_blocks() -> None:
    array = np.random.default_rng(0).integers(0, 9, (2, 5, 4, 3))
    blocks = _blocks(array, 2)
    assert blocks.shape == (2, 3, 2, 2, 8)
    assert sorted(blocks[1, 1, 0, 0]) == sorted(array[1, 2:4, 0:2, 0:2].ravel())
    assert blocks.sum() == array.sum(), "filled up with zeros"
    np.testing.assert_array_equal(_blocks(array, 1)[..., 0], array)


def row(share: float, reason: str | None, dice: tuple[float, float]) -> dict[str, Any]:
    focus: dict[str, Any] = {"share": share}
    focus |= {"whole_brain": reason} if reason else {}
    return {
        "recall": 0.9 if share else None,
        "voxels": voxels(focus),
        "focus": focus,
        "dice": {"whole": {"WT": dice[0]}, "focus": {"WT": dice[1]}},
        "ms": {"whole": 400.0, "focus": 200.0},
        "first_ms": {"whole": 500.0, "focus": 300.0},
    }


def test_summary() -> None:
    rows = [
        row(0.25, None, (0.8, 0.9)),
        row(0.5, "the tumour reaches a face of the part", (0.8, 0.8)),
        row(0.0, "the finder found nothing", (0.8, 0.7)),
    ]
    assert summary(rows) == {
        "n": 3,
        "recall": 0.9,
        "lowest_recall": 0.9,
        "voxels": round((0.25 + 1.5 + 1) / 3, 4),
        "dice_whole": 0.8,
        "dice_focus": 0.8,
        "worst_change": -0.1,
        "ms_whole": 400.0,
        "ms_focus": 200.0,
        "first_ms_whole": 500.0,
        "first_ms_focus": 300.0,
        "whole_brain": {
            "the tumour reaches a face of the part": 1,
            "the finder found nothing": 1,
        },
    }


def test_table() -> None:
    rows = [row(0.25, None, (0.8, 0.9)), row(0.0, "the finder found nothing", (0.8, 0.7))]
    engine = {"name": "x", "precision": "bf16", "device": "cpu"}
    text = focus_table({"engine": engine, "rounds": 3, "summary": {"val": summary(rows)}})
    expected = (
        *("validation", "2", "90.00% (90.00%)", "62%", "0.8000", "0.8000", "-0.1000", "1"),
        *("0.400 (0.500)", "0.200 (0.300)", "2.00"),
    )
    assert f"| {' | '.join(expected)} |" in text
