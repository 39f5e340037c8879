"""The examples run, do what their docstrings say, and stay short."""

from __future__ import annotations

import ast
import asyncio
import csv
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import MODALITIES, Segmenter

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAGE = (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_listed(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text), clean=False) or ""
    code = [line for line in text.replace(docstring, "").splitlines() if line.strip()]
    lines = [line for line in code if not line.startswith(("import ", "from "))]
    assert len(lines) <= 60
    assert re.search(r"\n    \S|says how to run", docstring), "how to run it"
    assert path.name in PAGE


@pytest.mark.slow
def test_asyncio_pool_answers_case_by_case(dataset: Path) -> None:
    from examples.asyncio_pool import lines

    async def collected(cases: list[str]) -> list[str]:
        return [line async for line in lines(cases)]

    given = sorted(str(path) for path in dataset.iterdir())
    done = sorted(asyncio.run(collected(given)))
    assert [line.partition(": ")[0] for line in done] == given
    assert re.fullmatch(r".*case_a: WT [1-9].* ml, TC [\d.]+ ml, ET [\d.]+ ml", done[0])
    assert "no file for t2" in done[2]


@pytest.mark.slow
def test_folder_batch_writes_labels_and_a_table(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.folder_batch import segment_folder

    assert segment_folder(dataset, tmp_path / "out") == 1
    assert capsys.readouterr().out.startswith("3 cases, 1 failed: ")
    with (tmp_path / "out/volumes.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    labels = nib.load(tmp_path / "out/case_a_seg.nii.gz").get_fdata()
    assert float(rows["case_a"]["WT"]) == pytest.approx(np.count_nonzero(labels) / 1000)
    assert rows["case_c"]["WT"] == ""
    assert "t2" in rows["case_c"]["error"]


@pytest.mark.slow
def test_arrays_of_a_viewer_give_the_labels_of_the_files(
    dataset: Path, tmp_path: Path, shipped_segmenter: Segmenter
) -> None:
    pytest.importorskip("SimpleITK")
    from examples.viewer_arrays import main

    paths = [str(next((dataset / "case_a").glob(f"*_{m}.nii.gz"))) for m in MODALITIES]
    main(paths, str(tmp_path / "seg.nii.gz"))
    written, expected = (
        nib.load(tmp_path / "seg.nii.gz"),
        shipped_segmenter.predict(dataset / "case_a"),
    )
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected.labels)
    np.testing.assert_allclose(written.affine, nib.load(paths[0]).affine, atol=1e-5)


@pytest.mark.parametrize(
    "direction", [np.eye(3), [[0, 1, 0], [0, 0, -1], [1, 0, 0]]], ids=["plain", "turned"]
)
def test_affine_is_that_of_the_file(tmp_path: Path, direction: np.ndarray) -> None:
    sitk = pytest.importorskip("SimpleITK")
    from examples.viewer_arrays import ras_affine

    image = sitk.Image(5, 6, 7, sitk.sitkInt16)
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(np.ravel(direction).astype(float).tolist())
    sitk.WriteImage(image, str(tmp_path / "x.nii.gz"))
    affine = ras_affine(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    np.testing.assert_allclose(affine, nib.load(tmp_path / "x.nii.gz").affine, atol=1e-5)
