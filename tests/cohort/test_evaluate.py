"""`fastbts evaluate`: scores against references, in folders and label schemes of all kinds."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import CaseError, Segmentation, Segmenter, Volume
from fastbts.cohort.pairs import find_pairs
from fastbts.files import write_json
from fastbts.labels import SCHEMES, to_scheme
from fastbts.phantom import make_case
from fastbts.scores.regions import region_scores
from tests.cli.commands import run
from tests.conftest import VoxelEngine

pytest.importorskip("scipy", reason="needs fastbts[evaluate]")
CASE = make_case(3, shape=(40, 40, 32))
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
PREDICTED = np.roll(CASE.labels, 1, axis=0)
EXPECTED = region_scores(PREDICTED, CASE.labels, (3.0, 3.0, 3.0))


def write(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(labels, affine).to_filename(path)
    return path


def scores(tmp_path: Path, *args: object) -> dict[tuple[str, str], dict[str, float]]:
    """Case and region -> scores, by the command."""
    code, output = run("evaluate", *args, "--json", tmp_path / "scores.json")
    assert code == 0, output
    rows = json.loads((tmp_path / "scores.json").read_text())["regions"]
    return {(row.pop("case"), row.pop("region")): row for row in rows}


def test_a_result_of_predict_against_a_case_folder(tmp_path: Path) -> None:
    result = Segmenter(VoxelEngine(), warm_up=False).predict(CASE.volume)
    result.save(tmp_path / "out/case1/seg.nii.gz", labels="brats2023")
    result.save(tmp_path / "out/case2/seg.nii.gz", labels="regions")
    affine = CASE.volume.affine
    for name in ("case1", "case2"):
        write(tmp_path / f"cases/{name}/{name}_seg.nii.gz", CASE.labels, affine)
    found = scores(tmp_path, tmp_path / "out", tmp_path / "cases")
    expected = region_scores(result.labels, CASE.labels, CASE.volume.geometry.spacing_mm)
    assert {case for case, _ in found} == {"case1", "case2"}
    for (_, region), row in found.items():
        assert row == pytest.approx(expected[region])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("other", SCHEMES)
def test_label_schemes(scheme: str, other: str, tmp_path: Path) -> None:
    one = write(tmp_path / "one.nii.gz", to_scheme(PREDICTED, scheme))
    two = write(tmp_path / "two.nii.gz", to_scheme(CASE.labels, other))
    by_values = scores(tmp_path, one, two)
    named = scores(tmp_path, one, two, "--labels", scheme, "--reference-labels", other)
    assert by_values == named
    assert {region: row for (_, region), row in named.items()} == EXPECTED


def test_a_resection_cavity_is_in_no_region(tmp_path: Path) -> None:
    with_cavity = to_scheme(CASE.labels, "brats2024").copy()
    with_cavity[:4, :4, :4] = 4
    one = write(tmp_path / "one.nii.gz", PREDICTED)
    two = write(tmp_path / "two.nii.gz", with_cavity)
    found = scores(tmp_path, one, two, "--reference-labels", "brats2024")
    assert {region: row for (_, region), row in found.items()} == EXPECTED
    code, output = run("evaluate", one, two)
    assert code == 1
    assert "two.nii.gz: has labels 3 and 4" in output
    assert "brats2024" in output


def test_one_scheme_for_all_references(tmp_path: Path) -> None:
    """A cavity without enhancing tumour in one case, and enhancing tumour in another."""
    cavity = to_scheme(CASE.labels, "brats2024").copy()
    cavity[cavity == 3] = 4
    for name, labels in (("one", cavity), ("two", to_scheme(CASE.labels, "brats2024"))):
        write(tmp_path / f"out/{name}_seg.nii.gz", PREDICTED)
        write(tmp_path / f"labels/{name}_seg.nii.gz", labels)
    given = ("evaluate", tmp_path / "out", tmp_path / "labels")
    code, output = run(*given)
    assert code == 1
    assert "two_seg.nii.gz: has label 3, and" in " ".join(output.split())
    assert "--reference-labels brats2021" in " ".join(output.split())
    (tmp_path / "labels/two_seg.nii.gz").unlink()
    code, output = run(*given)
    assert code == 0
    assert "warning: references: label 4 is taken for enhancing tumour" in output
    assert run(*given, "--reference-labels", "brats2024")[0] == 0


def test_a_label_that_the_scheme_has_not(tmp_path: Path) -> None:
    path = write(tmp_path / "one.nii.gz", CASE.labels)
    code, output = run("evaluate", path, path, "--labels", "brats2023")
    assert code == 1
    assert "one.nii.gz: label 4, expected 1, 2, 3 of brats2023" in " ".join(output.split())
    code, output = run("evaluate", path, path, "--labels", "brats")
    assert code == 2
    assert "label scheme 'brats': expected one of auto, brats2021" in " ".join(output.split())


def test_flat_folders_bids_and_what_has_no_partner(tmp_path: Path) -> None:
    bids = tmp_path / "bids/sub-A1/ses-2/anat/sub-A1_ses-2_space-orig_seg-brats2021_dseg.nii.gz"
    write(bids, PREDICTED)
    write(tmp_path / "bids/sub-B2/anat/sub-B2_space-orig_seg-brats2021_dseg.nii.gz", PREDICTED)
    for name in ("A1_ses-2", "C3"):
        write(tmp_path / f"flat/{name}_seg.nii.gz", CASE.labels)
    csv_file = tmp_path / "scores.csv"
    code, output = run("evaluate", tmp_path / "bids", tmp_path / "flat", "--csv", csv_file)
    assert code == 3
    assert "1 results without a reference, not scored: sub-B2" in output
    assert "1 references without a result, not in the means: C3" in output
    with csv_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["A1_ses-2"] * 3
    assert {row["region"]: float(row["dice"]) for row in rows} == {
        region: pytest.approx(row["dice"]) for region, row in EXPECTED.items()
    }
    code, output = run("evaluate", bids.parent, tmp_path / "flat/C3_seg.nii.gz")
    assert code == 0, "one and one: the names do not matter"


def test_it_replaces_its_tables_and_nothing_else(tmp_path: Path) -> None:
    one = write(tmp_path / "one.nii.gz", PREDICTED)
    two = write(tmp_path / "two.nii.gz", CASE.labels)
    files = ("--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    for _ in range(2):
        code, output = run("evaluate", one, two, *files)
        assert code == 0, output
    (tmp_path / "s.csv").write_text("case,age\n1,50\n")
    (tmp_path / "of_others.json").write_text("{}")
    for name, option in (("s.csv", "--csv"), ("of_others.json", "--json")):
        before = (tmp_path / name).read_text()
        code, output = run("evaluate", one, two, option, tmp_path / name)
        assert code == 1
        assert f"{name}: exists, and fastbts did not write it" in " ".join(output.split())
        assert (tmp_path / name).read_text() == before
        assert run("evaluate", one, two, option, tmp_path / name, "--overwrite")[0] == 0
    before = two.read_bytes()
    code, output = run("evaluate", one, two, "--csv", two, "--overwrite")
    assert code == 2
    assert "two.nii.gz: expected a name that ends in .csv" in " ".join(output.split())
    (tmp_path / "link.csv").symlink_to(two)
    code, output = run("evaluate", one, two, "--csv", tmp_path / "link.csv", "--overwrite")
    assert code == 1
    assert "link.csv: is an input" in " ".join(output.split())
    assert two.read_bytes() == before
    report = tmp_path / "r/report.json"
    Segmenter(VoxelEngine(), warm_up=False).predict(CASE.volume).save(
        tmp_path / "r/seg.nii.gz", sidecar=report
    )
    code, output = run("evaluate", one, two, "--json", report, "--overwrite")
    assert code == 1
    assert "report.json: is the report of a result" in " ".join(output.split())


LAYOUTS = {  # reference label image of a case -> result as `predict` names it
    "BIDS, one session each": ("sub-{}/ses-01/anat/sub-{}_ses-01_seg", "sub-{}/seg"),
    "a folder of cases": ("train/case{}/case{}_seg", "case{}/seg"),
    "cases beside each other": ("case{}/case{}_seg", "case{}/seg"),
    "BIDS both": ("sub-{}/ses-01/anat/sub-{}_seg", "sub-{}/ses-01/anat/sub-{}_dseg"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("where", ["derivatives/fastbts", "out"])
def test_pairs_in_the_layouts_of_predict(
    layout: tuple[str, str], where: str, tmp_path: Path
) -> None:
    """The results may be in a folder of the dataset: they are no references."""
    data, out = tmp_path / "dataset", tmp_path / "dataset" / where
    for number in ("01", "02", "03"):
        for place, name in zip((data, out), layout, strict=True):
            write(place / f"{name.replace('{}', number)}.nii.gz", PREDICTED)
    pairs = find_pairs(out, data)
    assert len(pairs.pairs) == 3
    assert not pairs.alone
    assert not pairs.missing
    for result, reference in pairs.pairs.values():
        digits = [
            re.findall(r"0\d", str(one[""].parent.relative_to(tmp_path)))
            for one in (result, reference)
        ]
        assert digits[0][0] == digits[1][0]


def test_regions_of_an_engine(tmp_path: Path) -> None:
    """Its report says them; values of the references say nothing about their scheme then."""
    values = np.where(PREDICTED > 0, 3, 0).astype(np.uint8)
    values[0, 0, 0] = 4
    for name in "ab":
        write(tmp_path / f"out/{name}/seg.nii.gz", values)
        write(tmp_path / f"labels/{name}_seg.nii.gz", values)
        write_json(
            tmp_path / f"out/{name}/report.json",
            {
                "software": {"fastbts": "0"},
                "files_sha256": {"seg.nii.gz": "0"},
                "region_labels": {"LESION": [3], "OTHER": [4]},
            },
        )
    found = scores(tmp_path, tmp_path / "out", tmp_path / "labels")
    assert {key: row["dice"] for key, row in found.items()} == {
        (name, region): 1 for name in "ab" for region in ("LESION", "OTHER")
    }


def test_names_that_are_alike_in_other_subjects_are_no_pairs(tmp_path: Path) -> None:
    for session in "12":
        write(tmp_path / f"a/sub-01/ses-{session}/anat/x_seg.nii.gz", PREDICTED)
        write(tmp_path / f"b/sub-02/ses-{session}/anat/x_seg.nii.gz", PREDICTED)
    with pytest.raises(CaseError, match=r"no case has a reference in .*: results of sub-01_ses-1"):
        find_pairs(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "c/A_b/seg.nii.gz", PREDICTED)
    write(tmp_path / "c/a-B/seg.nii.gz", PREDICTED)
    with pytest.raises(CaseError, match="'A_b' and 'a-B' count as one name"):
        find_pairs(tmp_path / "c", tmp_path / "b")


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    for folder in "ab":
        write(tmp_path / folder / "one.nii.gz", PREDICTED)
        write(tmp_path / folder / "two.nii.gz", PREDICTED, AFFINE * (1 if folder == "a" else 2))
    code, output = run("evaluate", tmp_path / "a", tmp_path / "b")
    assert code == 3
    assert "two.nii.gz: grid differs from" in output
    assert "1 not scored because of an error: two" in output
    (tmp_path / "b/one.nii.gz").rename(tmp_path / "b/x.nii.gz")
    (tmp_path / "b/two.nii.gz").rename(tmp_path / "b/y.nii.gz")
    code, output = run("evaluate", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert "no case has a reference in" in output
    (tmp_path / "empty").mkdir()
    code, output = run("evaluate", tmp_path / "a", tmp_path / "empty")
    assert code == 1
    assert "no label images; expected *seg.nii.gz" in output
    write(tmp_path / "m/seg_WT.nii.gz", PREDICTED)
    code, output = run("evaluate", tmp_path / "m", tmp_path / "a/one.nii.gz")
    assert code == 1
    assert "no mask of TC, ET beside it" in output
    write(tmp_path / "m/seg_TC.nii.gz", np.ones_like(PREDICTED))
    write(tmp_path / "m/seg_ET.nii.gz", PREDICTED)
    code, output = run("evaluate", tmp_path / "m", tmp_path / "a/one.nii.gz")
    assert code == 1
    assert "voxels of TC are outside of WT" in output


def test_an_extra_that_is_missing_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/one", "a/two", "b/one", "b/two"):
        write(tmp_path / f"{name}.nii.gz", PREDICTED)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    code, output = run("evaluate", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert output.count("scipy is not installed; install it with: pip install") == 1


@pytest.mark.slow
def test_lesions_of_a_phantom(tmp_path: Path) -> None:
    pytest.importorskip("panoptica", reason="lesion-wise scores come with the extra 'evaluate'")
    path = write(tmp_path / "one.nii.gz", CASE.labels)
    found = scores(tmp_path, path, path, "--lesions")
    assert found["case", "WT"]["lesions_found"] == found["case", "WT"]["lesions_reference"] > 0
    assert found["case", "WT"]["lesion_recognition"] == 1


class Saving:
    """A segmenter that also saves its results, so that each case is segmented once."""

    def __init__(self, segmenter: Segmenter, paths: list[Path]) -> None:
        self.spec, self._segmenter, self._paths = segmenter.spec, segmenter, iter(paths)

    def predict(self, volume: Volume) -> Segmentation:
        result = self._segmenter.predict(volume)
        result.save(next(self._paths))
        return result


@pytest.mark.data
def test_two_real_cases_as_training_scores_them(
    shipped_segmenter: Segmenter, val_cases: list[Path], tmp_path: Path
) -> None:
    training = pytest.importorskip("training.evaluate", reason="needs fastbts[train]")
    cases, links = val_cases[:2], tmp_path / "cases"
    links.mkdir()
    for case in cases:
        (links / case.name).symlink_to(case)
    paths = [tmp_path / f"out/{case.name}/seg.nii.gz" for case in cases]
    expected = training.evaluate(Saving(shipped_segmenter, paths), cases).rows
    found = scores(tmp_path, tmp_path / "out", links)
    for row in expected:
        assert found.pop((row.pop("case"), row.pop("region"))) == row
    assert not found
