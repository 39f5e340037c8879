"""Tasks with other images and regions than glioma's, through all commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from fastbts import EngineSpec, FastBTSError, Segmenter
from fastbts.engine.file import read_engine_file
from tests.cli.commands import run as fastbts
from tests.training.commands import run
from training.data.cases import prepare_case

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS: dict[str, dict[str, Any]] = {
    "one-image": {"modalities": ["adc"], "regions": {"lesion": [1, 2, 4]}},
    "two-images": {"modalities": ["flair", "t1ce"]},
    "four-regions": {
        "modalities": ["swi", "adc"],
        "regions": {"all": [1, 2, 4, 9], "lesion": [1, 4], "core": [4], "cavity": [9]},
    },
}
SOURCES = {"adc": "t2", "swi": "flair"}


@pytest.fixture(scope="module")
def data(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms, whose T2 is also called adc and FLAIR swi."""
    folder = tmp_path_factory.mktemp("tasks")
    for case in phantoms.glob("case?"):
        (folder / case.name).mkdir()
        for path in case.iterdir():
            (folder / case.name / path.name).symlink_to(path)
        for name, source in SOURCES.items():
            (folder / case.name / f"x_{name}.nii.gz").symlink_to(next(case.glob(f"*_{source}.*")))
    (folder / "cases.csv").symlink_to(phantoms / "cases.csv")
    return folder


def write_recipe(path: Path, name: str) -> Path:
    task = TASKS[name]
    n_regions = len(task.get("regions", "WTE"))
    model = {"widths": [4, 8, 8], "n_modalities": len(task["modalities"]), "n_regions": n_regions}
    stages = [{"steps": 2, "crop": [32, 32, 32]}]
    more = {"name": name, "model": model, "stages": stages, "validate_every": 2}
    path.write_text(yaml.safe_dump({**task, **more}, sort_keys=False))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_task_through_all_commands(data: Path, tmp_path: Path, name: str) -> None:
    recipe, trained = write_recipe(tmp_path / "recipe.yaml", name), tmp_path / "run"
    assert run("train", "--recipe", recipe, "--data", data, "--out", trained) == 0
    regions = [*TASKS[name].get("regions", ("WT", "TC", "ET"))]
    assert {*regions, "mean"} <= {*json.loads((trained / "dice.jsonl").read_text())}
    plain, engine = tmp_path / "plain.fbts", tmp_path / "engine.fbts"
    case = data / "case3"
    assert run("export", trained / "last.ckpt", "-o", plain, "--case", case) == 0
    assert run("tune", plain, "--data", data, "--precision", "fp32") == 0
    code, told = fastbts("build", plain, "-o", engine, "--calibrate", case)
    assert code == 0, told
    file = read_engine_file(engine)
    assert (file.manifest["license"], [*file.spec.regions]) == ("not stated", regions)
    assert {*file.manifest["build"]["parity"]["dice_change"]} == {*regions}

    code, told = fastbts("predict", data, "--engine", engine, "-o", tmp_path / "out", "--preview")
    assert code == 0, told
    out = tmp_path / "out/case3"
    assert {path.name for path in out.iterdir()} == {"seg.nii.gz", "report.json", "preview.png"}
    report = json.loads((out / "report.json").read_text())
    assert [*report["volumes_ml"]] == [*report["confidence"]] == regions
    assert fastbts("verify", out, "--engine", engine)[0] == 0
    images = {m: next(case.glob(f"*_{m}.nii.gz")) for m in TASKS[name]["modalities"]}
    result = Segmenter(engine, warm_up=False).predict(images)
    assert np.array_equal(nib.load(out / "seg.nii.gz").dataobj, result.labels)
    masks = ("--labels", "regions", "-o", tmp_path / "masks/seg.nii.gz")
    named = [f"--image={modality}={path}" for modality, path in images.items()]
    assert fastbts("predict", *named, "--engine", engine, *masks)[0] == 0
    assert fastbts("verify", tmp_path / "masks", "--engine", engine)[0] == 0
    for region, labels in result.regions.items():
        mask = np.asarray(nib.load(tmp_path / f"masks/seg_{region}.nii.gz").dataobj)
        assert np.array_equal(mask, np.isin(result.labels, labels))

    scores = tmp_path / "scores.json"
    files = ("--json", scores, "--csv", tmp_path / "x.csv", "--figure", tmp_path / "x.png")
    assert run("evaluate", "--data", data, "--engine", engine, *files) == 0
    assert {*json.loads(scores.read_text())["summary"]} == {*regions, "mean"}


def test_a_missing_image_is_named(phantoms: Path, tmp_path: Path) -> None:
    spec = EngineSpec(modalities=("adc",), regions=("lesion",), thresholds=(0.5,))
    with pytest.raises(FastBTSError, match=r"case1: no file for adc; expected \*_adc; .*--image"):
        prepare_case(phantoms / "case1", spec, tmp_path)
