"""`fastbts compare` and `fastbts.results`: two results of one patient."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import InputError, OptionsError, Segmentation, Segmenter, Volume
from fastbts.phantom import make_case
from fastbts.phantom.case import PhantomCase
from fastbts.results import saved
from fastbts.results.compare import Change, compare
from fastbts.results.saved import read_result
from fastbts.write.ours import is_ours
from fastbts.write.viewer.page import DATA
from tests.cli.commands import run
from tests.conftest import VoxelEngine

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


def segmented(case: PhantomCase, **spec: Any) -> Segmentation:
    """The reference as a result: `VoxelEngine` finds what is bright."""
    brain = (case.volume.data != 0).any(axis=0)
    data = np.zeros(case.volume.data.shape, np.int16)
    for n, labels in ((0, REGIONS["WT"]), (3, REGIONS["TC"]), (2, REGIONS["ET"])):
        data[n] = np.where(np.isin(case.labels, labels), 900, 100) * brain
    data[1] = 100 * brain
    data[1][np.nonzero(brain)[0][0], :, :] *= 2  # an image of one value is refused
    return Segmenter(VoxelEngine(**spec), warm_up=False).predict(Volume(data, case.volume.affine))


def save(result: Segmentation, folder: Path, **choice: Any) -> Path:
    result.save(folder / "seg.nii.gz", sidecar=folder / "report.json", **choice)
    return folder


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    """A tumour and its follow-up, grown by a voxel in all directions, as images of 1 mm."""
    cases = [make_case(0, (80, 80, 52), growth_mm=mm) for mm in (0.0, 3.0)]
    return [replace(case, volume=Volume(case.volume.data, np.eye(4))) for case in cases]


@pytest.fixture(scope="module")
def pair(cases: list[PhantomCase], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pair")
    before, after = (segmented(case) for case in cases)
    return [
        save(before, folder / "before", html=folder / "before/viewer.html", name="</h2><b>"),
        save(after, folder / "after", html=folder / "after/viewer.html", name="second"),
    ]


@pytest.fixture
def two(pair: list[Path], tmp_path: Path) -> list[Path]:
    """Copies that a test may change."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in pair]


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    report = json.loads((folder / "report.json").read_text())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))


def edit_page(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the content of a page, and its digest in the report."""
    page = folder / "viewer.html"
    head, begin, rest = page.read_text().partition(DATA)
    text, end, tail = rest.partition("</script>")
    (content,) = json.loads(text)
    change(content)
    page.write_text(f"{head}{begin}{json.dumps([content])}{end}{tail}")
    digest = sha256(page.read_bytes()).hexdigest()
    edit(folder, lambda report: report["files_sha256"].update({page.name: digest}))


def truth_ml(case: PhantomCase) -> dict[str, float]:
    ml = case.volume.geometry.voxel_ml
    return {name: np.isin(case.labels, labels).sum() * ml for name, labels in REGIONS.items()}


def test_known_growth(pair: list[Path], cases: list[PhantomCase]) -> None:
    """Within 2 % of the reference, on the whole way from images to files and back."""
    comparison = compare(*pair)
    before, after = map(truth_ml, cases)
    for region, change in comparison.changes.items():
        grown = 100 * (after[region] / before[region] - 1)
        assert grown > 15
        assert change.percent == pytest.approx(grown, abs=2), region
        assert change.before_ml == pytest.approx(before[region], rel=0.02)
    assert comparison.days is None


@pytest.mark.parametrize("scheme", ["brats2023", "regions"])
def test_other_schemes_give_the_same_change(
    cases: list[PhantomCase], pair: list[Path], tmp_path: Path, scheme: str
) -> None:
    after = save(segmented(cases[1]), tmp_path, labels=scheme)
    comparison = compare(pair[0], after)
    assert comparison.changes == compare(*pair).changes
    assert any(
        text.startswith(f"the label scheme differs: brats2021 and {scheme}")
        for text in comparison.warnings
    )


def test_change_by_hand() -> None:
    assert Change(50.0, 60.0).ml == 10
    assert Change(50.0, 60.0).percent == 20
    assert Change(50.0, 0.0).percent == -100
    assert Change(0.0, 3.0).percent is None


def test_command(pair: list[Path], tmp_path: Path) -> None:
    files = tmp_path / "c.json", tmp_path / "c.html"
    options = ["--json", files[0], "--html", files[1], "--days", "90"]
    code, output = run("compare", *pair, *options)
    assert code == 0, output
    changes = compare(*pair).changes
    for region, change in changes.items():
        line = next(line for line in output.splitlines() if line.startswith(region))
        assert line.split()[1:3] == [f"{change.before_ml:.1f}", f"{change.after_ml:.1f}"]
        assert line.split()[3:] == [f"{change.ml:+.1f}", f"{change.percent:+.1f}"]
    assert "90 days between the examinations" in output
    content = json.loads(files[0].read_text())
    assert content["days"] == 90
    assert content["regions"]["ET"]["change_ml"] == changes["ET"].ml
    assert content["warnings"] == []
    assert str(tmp_path) not in files[0].read_text()
    page = files[1].read_text()
    assert page.count('<canvas id="screen-') == 2
    assert "<h2>Before: &lt;/h2&gt;&lt;b&gt;</h2>" in page
    assert "90 days between" in page
    assert f"<td class=number>{changes['WT'].percent:+.1f}</td>" in page
    assert all(map(is_ours, files))
    assert run("compare", pair[0], pair[1] / "seg.nii.gz", *options)[0] == 0
    files[0].write_text("{}")
    code, output = run("compare", *pair, *options)
    assert code == 1
    assert "c.json: exists, and fastbts did not write it" in output
    assert run("compare", *pair, *options, "--overwrite")[0] == 0


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_results_are_not_overwritten(two: list[Path], option: str) -> None:
    name = {"--json": "report.json", "--html": "viewer.html"}[option]
    before = (two[0] / name).read_bytes()
    code, output = run("compare", *two, option, two[0] / name, "--overwrite")
    assert code == 1
    assert f"{name}: is an input of this case" in output
    assert (two[0] / name).read_bytes() == before


def test_wrong_names_are_refused(pair: list[Path], tmp_path: Path) -> None:
    code, output = run("compare", *pair, "--json", tmp_path / "c.txt")
    assert code == 2
    assert "c.txt: expected a name that ends in .json" in output
    code, output = run("compare", *pair, "--html", tmp_path / "c.pdf")
    assert code == 2
    assert "c.pdf: expected a name that ends in .html" in output
    with pytest.raises(OptionsError, match="days -1: expected 0 or more"):
        compare(*pair, days=-1)


def test_what_differs_is_told(two: list[Path]) -> None:
    def change(report: dict[str, Any]) -> None:
        report["engine"].update(sha256="0" * 64, precision="int8")
        report["input"]["shape"] = [1, 2, 3]
        report["input"]["sha256"] = {"t1": "1"}
        report["warnings"] = ["t1: odd"]

    edit(two[1], change)
    edit(two[0], lambda report: report["input"].update(sha256={"t1": "1"}))
    told = "\n".join(compare(*two).warnings)
    assert "the engine differs: voxel and 000" in told
    assert "the precision differs: fp32 and int8" in told
    assert "the grids differ: 80 x 80 x 52 voxels of " in told
    assert "both results are of the same images" in told
    assert "after: t1: odd" in told


def test_a_corrected_mask_counts(two: list[Path]) -> None:
    image = nib.load(two[1] / "seg.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    labels[labels == 4] = 1
    nib.Nifti1Image(labels, image.affine, image.header).to_filename(two[1] / "seg.nii.gz")
    comparison = compare(*two)
    assert comparison.changes["ET"].percent == -100
    assert "after: seg.nii.gz: changed since the report was written" in comparison.warnings[0]
    (two[1] / "seg.nii.gz").unlink()
    comparison = compare(*two)
    assert comparison.changes["ET"].ml > 0
    assert "after: seg.nii.gz: missing; the volumes are those of the report" in comparison.warnings


def test_days_come_from_dicom(pair: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = map(read_result, pair)
    assert first.date is None
    later = replace(second, date=date(2026, 3, 1))
    assert compare(replace(first, date=date(2026, 1, 30)), later).days == 30
    comparison = compare(replace(first, date=date(2026, 3, 3)), later)
    assert comparison.days == -2
    assert "was 2 days before the first" in comparison.warnings[0]


def test_date_of_a_dicom_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pydicom = pytest.importorskip("pydicom")
    monkeypatch.setattr(saved, "is_ours", lambda path: True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = pydicom.uid.ExplicitVRLittleEndian, "1.2"
    meta.MediaStorageSOPInstanceUID = "1.3"
    for text, expected in (("20260131", date(2026, 1, 31)), ("", None)):
        dataset = pydicom.Dataset()
        dataset.StudyDate, dataset.file_meta = text, meta
        dataset.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        assert saved._date([tmp_path / "none.dcm", tmp_path / "seg.dcm"]) == expected


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "report.json").unlink(), "without a report"),
        (lambda f: shutil.rmtree(f), "no report.json"),
        (lambda f: (f / "report.json").write_text("no json"), "no report of fastbts"),
        (lambda f: (f / "report.json").write_text("[1]"), "no report of fastbts"),
        (lambda f: edit(f, lambda r: r.pop("engine")), "no report of fastbts: KeyError"),
        (lambda f: edit(f, lambda r: r.update(volumes_ml={"WT": "x"})), "no report of fastbts"),
        (lambda f: edit(f, lambda r: r.update(volumes_ml={"brain": 1.0})), "no report of fastbts"),
        (
            lambda f: shutil.copytree(f, f / "again"),
            "expected one result .*, got 2 results",
        ),
        (lambda f: (f / "seg.nii.gz").write_bytes(b"no image" * 99), "expected a NIfTI image"),
    ],
)
def test_what_is_no_result_is_refused(
    two: list[Path], damage: Callable[[Path], Any], says: str
) -> None:
    damage(two[1])
    with pytest.raises(InputError, match=says):
        compare(*two)
    code, output = run("compare", *two)
    assert code == 1
    assert output.count("error:") == 1


def test_results_of_other_regions(pair: list[Path], two: list[Path]) -> None:
    for name in ("seg.nii.gz", "viewer.html"):
        edit(two[1], lambda report, name=name: report["files_sha256"].pop(name))
    edit(two[1], lambda report: report["files_sha256"].update({"x.png": ""}))
    edit(two[1], lambda report: report.update(volumes_ml={"WT": 5.0, "RC": 1.0}))
    comparison = compare(*two)
    assert [*comparison.changes] == ["WT"]
    assert "the regions differ: WT, TC, ET and WT, RC" in comparison.warnings[0]
    edit(two[1], lambda report: report.update(volumes_ml={"RC": 1.0}))
    with pytest.raises(InputError, match="expected one of the regions WT, TC, ET, got RC"):
        compare(*two)


@pytest.mark.parametrize("change", ["remove", "edit", "other", "two", "side", "image"])
def test_a_page_needs_the_pages_of_both(two: list[Path], tmp_path: Path, change: str) -> None:
    page, says = two[1] / "viewer.html", r"viewer.html: cannot be used: missing, or changed"
    if change == "remove":
        page.unlink()
    elif change == "edit":
        page.write_bytes(page.read_bytes() + b" ")
    elif change == "two":
        shutil.copy(page, two[1] / "other.html")
        edit(two[1], lambda r: r["files_sha256"].update({"other.html": "0"}))
        says = "expected one page with the images of the result, got viewer.html, other.html"
    elif change in ("side", "image"):
        edit_page(
            two[1],
            {"side": lambda c: c["sides"].pop(), "image": lambda c: c["images"].clear()}[change],
        )
        says = "viewer.html: cannot be used: expected images, and sides and a centre of 3 axes"
    else:
        edit(two[1], lambda report: report["files_sha256"].pop("viewer.html"))
        says = "the result has no page with its images; expected viewer.html"
    code, output = run("compare", *two, "--html", tmp_path / "c.html")
    assert code == 1
    assert says in output
    assert not (tmp_path / "c.html").exists()
