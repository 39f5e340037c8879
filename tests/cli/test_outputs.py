"""What `fastbts predict` writes, replaces and refuses to replace."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.budget import budget
from tests.cli.commands import image_of, run
from tests.write.result_files import contents, is_one_run


def test_files_of_others_are_found_before_the_work(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    """The case folder has the labels of a person, and is the folder for the results."""
    truth = case / "seg.nii.gz"
    image_of(case, "seg").rename(truth)
    before = truth.read_bytes()
    code, output = run("predict", case, "-o", case, "--engine", tmp_path / "none.fbts")
    assert code == 1
    assert output.count("error:") == 1
    assert "seg.nii.gz: exists, and fastbts did not write it" in output
    assert "--overwrite" in output
    assert truth.read_bytes() == before
    command = ("predict", case, "-o", case, "--engine", voxel_engine, "--overwrite")
    assert run(*command)[0] == 0
    assert truth.read_bytes() != before


def test_an_input_is_not_overwritten_even_on_request(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    flair = image_of(case, "flair")
    before = flair.read_bytes()
    for option in ([], ["--overwrite"]):
        code, output = run("predict", case, "-o", flair, "--engine", voxel_engine, *option)
        assert code == 1
        assert output.count("error:") == 1
    assert "is an input of this case" in output
    assert flair.read_bytes() == before


def test_files_of_an_earlier_result_are_removed(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert run(*command, "--labels", "regions", "--preview")[0] == 0
    code, output = run(*command)
    assert code == 0
    names = ["preview.png", "seg_ET.nii.gz", "seg_TC.nii.gz", "seg_WT.nii.gz"]
    removed = next(line for line in output.splitlines() if line.startswith("removed "))
    assert all(name in removed for name in names)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.json", "seg.nii.gz"]


def test_files_of_others_beside_the_result_are_named(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    """A mask of another scheme that a person has changed stays, and is not of this result."""
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert run(*command)[0] == 0
    mask = tmp_path / "out/seg.nii.gz"
    image = nib.load(mask)
    edited = np.asarray(image.dataobj).copy()
    edited[0, 0, 0] = 1
    nib.Nifti1Image(edited, image.affine, image.header).to_filename(mask)
    code, output = run(*command, "--labels", "regions")
    assert code == 0
    assert f"kept {mask}: not by fastbts, or changed" in output.replace("\n", "")
    assert np.asarray(nib.load(mask).dataobj)[0, 0, 0] == 1


@pytest.mark.parametrize("name", ["case_seg.nii.gz", "case_seg.nii", "case.v2.NII.GZ"])
def test_output_may_be_an_image(case: Path, voxel_engine: Path, tmp_path: Path, name: str) -> None:
    image = tmp_path / "new" / name
    code, output = run("predict", case, "-o", image, "--engine", voxel_engine, "--preview")
    assert code == 0, output
    stem = name[: name.lower().index(".nii")]
    expected = sorted([name, f"{stem}.json", f"{stem}.png"])
    assert sorted(path.name for path in image.parent.iterdir()) == expected
    assert np.asarray(nib.load(image).dataobj).any()
    assert run("verify", image.parent, "--engine", voxel_engine)[0] == 0


def test_output_image_of_regions(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    command = ("predict", case, "-o", tmp_path / "x.nii.gz", "--engine", voxel_engine)
    assert run(*command, "--labels", "regions")[0] == 0
    names = ["x.json", "x_ET.nii.gz", "x_TC.nii.gz", "x_WT.nii.gz"]
    assert sorted(path.name for path in tmp_path.glob("x*")) == names


@pytest.mark.parametrize(
    "name",
    [
        *("seg.mgz", "seg.nrrd", "seg.json", "seg.png", "seg.hdr", "seg.gz", ".nii.gz", ".nii"),
        *("page.html", "page.htm", "table.csv", "table.tsv"),
    ],
)
def test_output_of_another_kind_is_refused(case: Path, tmp_path: Path, name: str) -> None:
    code, output = run("predict", case, "-o", tmp_path / "out" / name)
    assert code == 2
    assert f"{name}: expected a name that ends in .nii.gz, .nii, .seg.nrrd or .dcm" in output
    assert not (tmp_path / "out").exists()


def test_output_image_is_for_one_case(case: Path, tmp_path: Path) -> None:
    second = shutil.copytree(case, tmp_path / "second")
    code, output = run("predict", case, second, "-o", tmp_path / "seg.nii.gz")
    assert code == 2
    assert "seg.nii.gz: names one image for 2 cases; give a folder" in output
    code, output = run("demo", "-o", tmp_path / "seg.nii.gz")
    assert code == 2
    assert "seg.nii.gz: the demo writes several files; give a folder" in output
    assert not (tmp_path / "seg.nii.gz").exists()


def test_a_folder_with_the_name_of_an_image_is_a_folder(
    case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.nii.gz"
    out.mkdir()
    assert run("predict", case, "-o", out, "--engine", voxel_engine)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "seg.nii.gz"]


def kill_over_an_earlier_result(case: Path, engine: Path, folder: Path, n_kills: int) -> int:
    """Kills `fastbts predict` at random times; returns how many runs were killed.

    The earlier result has a preview and another label scheme.
    """
    command = [sys.executable, "-m", "fastbts", "predict", case, "--engine", engine, "-o"]
    regions, preview = ["--labels", "regions"], ["--preview"]
    subprocess.run([*command, folder / "old", *regions, *preview], check=True, capture_output=True)
    began = time.perf_counter()
    subprocess.run([*command, folder / "new", *preview], check=True, capture_output=True)
    seconds, rng, n_killed = time.perf_counter() - began, random.Random(7), 0
    for n in range(n_kills):
        out = Path(shutil.copytree(folder / "old", folder / str(n)))
        child = subprocess.Popen([*command, out, *preview], stdout=subprocess.DEVNULL)
        # Half of the kills fall into the last part, in which the files are written.
        time.sleep(rng.uniform(0, 1.1 * seconds) if n % 2 else rng.uniform(0.7, 1.1) * seconds)
        child.kill()
        n_killed += child.wait() == -signal.SIGKILL
        assert is_one_run(out, *(contents(folder / run) for run in ("old", "new"))), sorted(
            out.iterdir()
        )
        if n % 10 == 0:
            subprocess.run([*command, out], check=True, capture_output=True)
            assert sorted(p.name for p in out.iterdir()) == ["report.json", "seg.nii.gz"]
    return n_killed


@pytest.mark.guard
@pytest.mark.slow
def test_killed_runs_leave_files_of_one_run(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    n_kills = budget(10, 200)
    n_killed = kill_over_an_earlier_result(case, voxel_engine, tmp_path, n_kills)
    assert n_killed > n_kills / 4


def test_unwritable_output_is_found_before_the_work(case: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    code, output = run("predict", case, "-o", tmp_path / "out")
    assert code == 1
    assert output.count("error:") == 1
    assert str(tmp_path / "out") in output


@pytest.mark.parametrize(
    ("blocked", "options"),
    [
        ("report.json", []),
        ("preview.png", ["--preview"]),
        ("seg_ET.nii.gz", ["--labels", "regions"]),
    ],
)
def test_any_unwritable_output_leaves_none(
    case: Path, tmp_path: Path, blocked: str, options: list[str]
) -> None:
    (tmp_path / "out" / blocked).mkdir(parents=True)
    code, output = run("predict", case, "-o", tmp_path / "out", *options)
    assert code == 1
    assert output.count("error:") == 1
    assert blocked in output
    assert [p.name for p in (tmp_path / "out").iterdir()] == [blocked]
