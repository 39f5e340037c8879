"""Parts, what counts as done, the table, BIDS derivatives, and what the command says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastbts import OptionsError, OutputError, SegmenterOptions, cohort
from fastbts.cli.common import overall_bar
from fastbts.cohort.bids import bids_files
from fastbts.cohort.outcome import Outcome
from fastbts.cohort.part import Part
from fastbts.cohort.plan import layout, make_plan
from fastbts.cohort.summary import Summary, read_summary
from fastbts.engine.load import read_engine
from fastbts.files import write_json
from fastbts.read.find import name_cases
from tests.cli.commands import run
from tests.cohort.cases import break_case, write_cases
from tests.conftest import write_voxel_engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Cases that no test changes."""
    return write_cases(tmp_path_factory.mktemp("cases"), 3)


def predict(engine: Path, out: Path, *args: object) -> tuple[int, str]:
    return run("predict", *args, "-o", out, "--engine", engine)


def states(out: Path) -> dict[str, str]:
    return {row["case"]: row["state"] for row in read_summary(out / "summary.csv")}


def test_parts_by_hand() -> None:
    names = ["d", "a", "c", "b", "e"]
    assert [Part(k, 2).of(names) for k in (1, 2)] == [["a", "c", "e"], ["b", "d"]]
    assert Part(7, 8).of(names) == []
    for n_parts in range(1, 8):
        parts = [name for k in range(n_parts) for name in Part(k + 1, n_parts).of(names)]
        assert sorted(parts) == sorted(names)
    assert Part.parse(" 3/8") == Part(3, 8)
    assert str(Part(3, 8)) == "part 3 of 8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "a/b", "1/0", "-1/2"])
def test_a_part_that_there_is_not(text: str) -> None:
    with pytest.raises(OptionsError, match=r"expected (a number from 1|NUMBER/PARTS)"):
        Part.parse(text)


def test_a_part_without_cases(engine: Path, three: list[Path], tmp_path: Path) -> None:
    code, output = predict(engine, tmp_path / "out", *three, "--part", "4/4")
    assert code == 0, output
    assert "part 4 of 4: 0 of 3 cases" in output
    assert set(states(tmp_path / "out").values()) == {"waiting"}


def test_failed_cases_are_listed_and_tried_again(engine: Path, tmp_path: Path) -> None:
    cases, out = write_cases(tmp_path / "cases", 3), tmp_path / "out"
    whole = shutil.copytree(cases[1], tmp_path / "whole")
    break_case(cases[1])
    code, output = predict(engine, out, *cases)
    assert code == 3
    end = output[output.index("1 of 3 cases failed:") :]
    assert re.search(r"  case01: .*case01: no file for t1", end)
    row = read_summary(out / "summary.csv")[1]
    assert row["state"] == "failed"
    assert "no file for t1" in row["error"]
    assert row["finished"]
    assert not (out / "case01").exists()
    code, output = predict(engine, out, *cases, "--skip-done", "--part", "1/3")
    assert code == 0
    assert "1 of 1 done before, 0 to do" in output
    assert states(out) == {"case00": "done", "case01": "failed", "case02": "done"}, "kept"
    shutil.rmtree(cases[1])
    whole.rename(cases[1])
    code, output = predict(engine, out, *cases, "--skip-done")
    assert code == 0, output
    assert "2 of 3 done before, 1 to do" in output
    assert states(out) == dict.fromkeys(("case00", "case01", "case02"), "done")


def test_what_counts_as_done(engine: Path, tmp_path: Path) -> None:
    """Not a result without report or file, of other labels, engine or picture, or older images."""
    cases, out = write_cases(tmp_path / "cases", 7), tmp_path / "out"
    assert predict(engine, out, *cases)[0] == 0
    (out / "case00/report.json").unlink()
    (out / "case01/seg.nii.gz").unlink()
    (out / "case02/report.json").write_text("{")
    late = (out / "case03/report.json").stat().st_mtime + 10
    os.utime(cases[3] / "c_t1.nii", (late, late))
    for added in ("c_seg.nii.gz", "notes.txt"):  # the case does not read them
        (cases[4] / added).touch()
        os.utime(cases[4] / added, (late, late))

    def names(path: Path = engine, labels: str | None = None, preview: bool = False) -> list[str]:
        file, given = read_engine(path), {case.name: case for case in cases}
        files = layout("folders", out, given, file.spec, preview=preview)
        save = {"labels": labels, "overwrite": False}
        return [job.name for job in make_plan(given, files, save, out, file, skip_done=True).jobs]

    assert names() == ["case00", "case01", "case02", "case03"]
    assert names(labels="brats2021") == names()
    everything = [case.name for case in cases]
    assert names(labels="brats2023") == everything
    assert names(preview=True) == everything
    assert names(write_voxel_engine(tmp_path / "other.fbts", min_part_mm3=1.0)) == everything


def test_a_changed_result_is_not_replaced_silently(
    engine: Path, three: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert predict(engine, out, *three)[0] == 0
    (out / "case01/seg.nii.gz").write_bytes(b"by hand")
    code, output = predict(engine, out, *three, "--skip-done")
    assert code == 1
    assert "case01/seg.nii.gz: exists, and fastbts did not write it" in " ".join(output.split())
    code, output = predict(engine, out, *three, "--skip-done", "--overwrite")
    assert code == 0
    assert "2 of 3 done before, 1 to do" in output


def test_the_table_joins_processes(engine: Path, tmp_path: Path) -> None:
    """Each writes what it knows; the newer of a failure and a report counts."""
    file, reports = read_engine(engine), {name: tmp_path / name / "r.json" for name in "abc"}
    one, two = (Summary(tmp_path, reports, file) for _ in range(2))
    one.add(Outcome.failed("a", ValueError('too small, "really"\nor not')))
    two.add(Outcome.failed("b", ValueError("large")))
    one.write()
    assert states(tmp_path) == {"a": "failed", "b": "failed", "c": "waiting"}
    assert read_summary(tmp_path / "summary.csv")[0]["error"] == 'too small, "really" or not'
    report = {
        "software": {"fastbts": "0"},
        "engine": {"sha256": file.sha256},
        "files_sha256": {"x": "0"},
        "volumes_ml": {"WT": 1.0},
        "confidence": {"WT": 0.5},
        "warnings": ["one", "two"],
        "timings_ms": {"total": 1000.0, "write": 500.0},
    }
    for name in "abc":
        write_json(reports[name], report)
    os.utime(reports["b"], (0, 0))
    Summary(tmp_path, reports, file).write()
    assert states(tmp_path) == {"a": "done", "b": "failed", "c": "done"}
    row = read_summary(tmp_path / "summary.csv")[0]
    assert (row["WT_ml"], row["seconds"], row["warnings"]) == ("1.000", "1.5", "one; two")
    Summary(tmp_path, {"d": tmp_path / "d"}, file).write()
    assert [*states(tmp_path)] == ["a", "b", "c", "d"], "cases of another command stay"


def test_each_report_is_read_once(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = {name: tmp_path / f"{name}.json" for name in "abc"}
    for path in reports.values():
        path.write_text("{}")
    read: list[str] = []
    monkeypatch.setattr(Outcome, "of_report", lambda name, *_: read.append(name))
    summary = Summary(tmp_path, reports, read_engine(engine))
    for _ in range(3):
        summary.add(Outcome.failed("a", ValueError()))
    assert read == ["a", "b", "c"]
    os.utime(reports["b"], (0, 0))
    summary.write()
    assert read == ["a", "b", "c", "b"]


def test_a_table_of_others_is_not_replaced(engine: Path, three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("patient,age\n1,50\n")
    code, output = predict(engine, tmp_path, *three)
    assert code == 1
    assert "summary.csv: exists, and fastbts did not write it" in " ".join(output.split())
    assert predict(engine, tmp_path, *three, "--overwrite")[0] == 0
    assert states(tmp_path)["case00"] == "done"


def test_from_python(engine: Path, three: list[Path], tmp_path: Path) -> None:
    options = SegmenterOptions(parallel=2)
    given: list[str | Path] = [*three, tmp_path / "missing"]
    outcomes = cohort.predict(given, tmp_path / "out", engine=engine, options=options)
    assert [x.state for x in outcomes] == ["done"] * 3 + ["failed"]
    assert outcomes[0].volumes_ml["WT"] > 0
    assert "missing" in outcomes[3].error
    kept = cohort.predict(given, tmp_path / "out", engine=engine, skip_done=True, part="1/2")
    assert kept == [], "cases 1 and 3 were done"
    for out_format in ("folders", "bids"):
        with pytest.raises(OptionsError, match="label scheme 'brats2022': expected"):
            cohort.predict(
                given, tmp_path / "x", engine=engine, labels="brats2022", out_format=out_format
            )
    assert not (tmp_path / "x").exists()
    (tmp_path / "out" / outcomes[0].case / "seg.nii.gz").write_bytes(b"by hand")
    with pytest.raises(OutputError, match=r"seg\.nii\.gz: exists, and fastbts did not write it"):
        cohort.predict(given, tmp_path / "out", engine=engine)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cohort.nothing


BIDS = [
    "sub-01/ses-a/anat/sub-01_ses-a_space-orig_seg-brats2021_dseg",
    "sub-case00/anat/sub-case00_space-orig_seg-brats2021_dseg",
]


def test_bids_derivatives(engine: Path, three: list[Path], tmp_path: Path) -> None:
    session = shutil.copytree(three[1], tmp_path / "raw/sub-01/ses-a/anat")
    plain = shutil.copytree(three[0], tmp_path / "raw/case00")
    out, bids = tmp_path / "out", ("--out-format", "bids", "--skip-done", "--preview")
    code, output = predict(engine, out, plain, session, *bids)
    assert code == 0, output
    for stem in BIDS:
        assert {p.name for p in (out / stem).parent.iterdir()} == {
            f"{Path(stem).name}{suffix}" for suffix in (".nii.gz", ".json", ".tsv", ".png")
        }
    table = (out / f"{BIDS[1]}.tsv").read_text().splitlines()
    assert table[0] == "index\tname\tcolor"
    assert table[1:] == ["1\tNCR\t#F0E442", "2\tED\t#56B4E9", "4\tET\t#E65500"]
    assert json.loads((out / f"{BIDS[0]}.json").read_text())["SpatialReference"] == "orig"
    code, output = predict(engine, out, plain, session, *bids)
    assert "2 of 2 done before, 0 to do" in output
    table, listed = out / f"{BIDS[1]}.tsv", out / f"{BIDS[1]}.json"
    assert table.name in json.loads(listed.read_text())["files_sha256"]
    assert run("verify", listed, "--engine", engine)[0] == 0
    code, output = run("verify", out, "--engine", engine)
    assert code == 0
    assert [f"{stem}.json" in output for stem in BIDS] == [True, True], "all of the dataset"
    ours = table.read_text()
    table.write_text("of others")
    code, output = run("verify", listed, "--engine", engine)
    assert code == 1
    assert f"{table.name}" in output
    code, output = predict(engine, out, plain, session, *bids)
    assert code == 1
    assert ".tsv: exists, and fastbts did not write it" in " ".join(output.split())
    assert table.read_text() == "of others"
    assert predict(engine, out, plain, session, *bids, "--overwrite")[0] == 0
    assert table.read_text() == ours
    listed.unlink()  # as if it was killed before the report
    assert predict(engine, out, plain, session, *bids)[0] == 0


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        (["sub-project/case_a", "sub-project/case_b"], ["sub-casea", "sub-caseb"]),
        (["sub-project/case_a"], ["sub-casea"]),
        (["sub-1/ses-a/anat"], ["sub-1_ses-a"]),
        (["sub-1/ses-a/anat", "sub-1/ses-b/anat"], ["sub-1_ses-a", "sub-1_ses-b"]),
        (["d/sub-1/ses-a/x", "d/sub-2/ses-a/x"], ["sub-1_ses-a", "sub-2_ses-a"]),
        (["d/sub-1/x.nii.gz", "d/sub-2/y.nii.gz"], ["sub-1", "sub-2"]),
    ],
)
def test_which_folders_are_subjects(cases: list[str], expected: list[str]) -> None:
    given = name_cases([Path("/data") / case for case in cases])
    files = bids_files(Path("out"), given, "brats2021")
    assert [str(file["path"].name).partition("_space")[0] for file in files] == expected


def test_bids_leaves_texts_of_others(engine: Path, three: list[Path], tmp_path: Path) -> None:
    bids = ("--out-format", "bids")
    for name in ("README", ".bidsignore"):
        (tmp_path / name).write_text("summary.csv\nof others\n")
    assert predict(engine, tmp_path, three[0], *bids)[0] == 0
    for name in ("README", ".bidsignore"):
        assert (tmp_path / name).read_text() == "summary.csv\nof others\n"
    assert predict(engine, tmp_path, three[0], *bids, "--overwrite")[0] == 0
    assert "labels (.tsv)" in (tmp_path / "README").read_text()
    assert (tmp_path / ".bidsignore").read_text() == "summary.csv\n*_dseg.png\n*_dseg.html\n"
    (tmp_path / "README").write_text("Brain-tumour segmentations by fastbts 0.0.1: old\n")
    (tmp_path / ".bidsignore").write_text("summary.csv\n")
    assert predict(engine, tmp_path, three[0], *bids)[0] == 0
    assert "labels (.tsv)" in (tmp_path / "README").read_text(), "of an older version"
    assert "*_dseg.png" in (tmp_path / ".bidsignore").read_text()


def test_bids_by_its_validator(engine: Path, three: list[Path], tmp_path: Path) -> None:
    validator = shutil.which(os.environ.get("FASTBTS_BIDS_VALIDATOR", "bids-validator-deno"))
    if validator is None:
        pytest.skip("no BIDS validator: pip install bids-validator-deno")
    bids = ("--out-format", "bids", "--preview")
    assert predict(engine, tmp_path, *three, *bids)[0] == 0
    checked = subprocess.run([validator, tmp_path, "--json"], capture_output=True, text=True)
    issues = json.loads(checked.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_bids_that_cannot_be(engine: Path, three: list[Path], tmp_path: Path) -> None:
    bids = ("--out-format", "bids")
    code, output = predict(engine, tmp_path / "a", *three, *bids, "--labels", "regions")
    assert code == 2
    assert "has one label image per case" in output
    alike = [tmp_path / name for name in ("case00", "case-00")]
    for folder in alike:
        folder.mkdir()
    code, output = predict(engine, tmp_path / "a", *alike, *bids)
    assert code == 2
    assert "would both be sub-case00_space-orig" in " ".join(output.split())
    code, output = predict(engine, tmp_path / "a.nii.gz", three[0], *bids)
    assert code == 2
    assert "names an image; expected a folder" in output
    code, output = predict(engine, tmp_path / "a", three[0], "--out-format", "dicom")
    assert code == 2
    assert "out_format 'dicom': expected one of folders, bids" in output
    (tmp_path / "raw").mkdir()
    write_json(tmp_path / "raw/dataset_description.json", {"Name": "of others"})
    with pytest.raises(OutputError, match="a dataset that fastbts did not write"):
        cohort.predict([three[0]], tmp_path / "raw", engine=engine, out_format="bids")


def test_one_bar_for_all_cases_on_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with overall_bar(3) as bar:
        bar("case01 (2/3): infer", 1.5)
    assert capfd.readouterr().err == "", "nothing in a pipe"
    ours, theirs = os.openpty()
    code = (
        "from fastbts.cli.common import overall_bar\nimport sys\n"
        "with overall_bar(4) as bar:\n bar('case01 (2/4): infer', 2)\n print('of the pipe')\n"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert done.stdout == b"of the pipe\n"
    assert b"case01 (2/4): infer" in shown
    assert b"50%" in shown


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # Linux: the other end was closed
        return b""
