"""Twelve cases in three parts, killed and started again: nothing is lost or done twice.

The network is a small one; the commands, the kills and the files are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts.cohort.summary import read_summary
from tests.cli.commands import run
from tests.cohort.cases import GO_ON, write_cases
from tests.conftest import write_voxel_engine
from tests.node.nodes import until

N_CASES, N_PARTS = 12, 3
N_WRITTEN = (0, 2, 3)
"""Results that each part has written when it is killed while it writes the next."""
STAGES = ("write", "name", "write")
"""Where it is then: only the second has given the image its name."""
IMAGE = "seg.nii.gz"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts")


def part(number: int, cases: list[Path], out: Path, engine: Path) -> list[str]:
    options = ("--part", f"{number}/{N_PARTS}", "--skip-done", "--jobs", 1, "--engine", engine)
    return ["predict", *map(str, (*cases, "-o", out, *options))]


def kill_in_the_middle(command: list[str], n_written: int, stage: str, reached: Path) -> None:
    """Kills the process while it writes the result after `n_written` complete ones."""
    environment = {**os.environ, GO_ON: str(n_written), "FASTBTS_TEST_REACHED": str(reached)}
    environment["FASTBTS_TEST_STAGE"] = stage
    module = [sys.executable, "-m", "tests.cohort.cases"]
    with subprocess.Popen([*module, *command], cwd=ROOT, env=environment) as process:
        try:
            until("it writes", lambda: reached.exists() or process.poll() is not None)
            assert process.poll() is None
        finally:
            process.kill()


def finished(out: Path) -> dict[str, int]:
    """Case -> time of its report, and so which run made it."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/report.json")}


@pytest.mark.slow
def test_killed_and_started_again(engine: Path, tmp_path: Path) -> None:
    cases, out = write_cases(tmp_path / "cohort", N_CASES), tmp_path / "out"
    for number, n_written in enumerate(N_WRITTEN, 1):
        command = part(number, cases, out, engine)
        kill_in_the_middle(command, n_written, STAGES[number - 1], tmp_path / f"reached{number}")
    shown = sorted(path.relative_to(out).as_posix() for path in out.glob("*/[!.]*"))
    complete = [f"{case}/{name}" for case in finished(out) for name in ("report.json", IMAGE)]
    assert [name for name in shown if name not in complete] == [f"case07/{IMAGE}"]
    np.asanyarray(nib.load(out / "case07" / IMAGE).dataobj)  # an image that is there is whole
    before = finished(out)
    assert len(before) == sum(N_WRITTEN)
    for number, n_written in enumerate(N_WRITTEN, 1):
        code, output = run(*part(number, cases, out, engine))
        assert code == 0, output
        assert f"part {number} of {N_PARTS}: 4 of {N_CASES} cases" in output
        if n_written:
            assert f"{n_written} of 4 done before, {4 - n_written} to do" in output
        assert output.count("\nwrote ") == 4 - n_written + 1, "the results and the table"
    after = finished(out)
    assert len(after) == N_CASES
    assert {name: after[name] for name in before} == before, "none was done twice"
    rows = read_summary(out / "summary.csv")
    assert [row["case"] for row in rows] == [case.name for case in cases]
    for row in rows:
        report = json.loads((out / row["case"] / "report.json").read_text())
        assert row["state"] == "done"
        assert row["WT_ml"] == f"{report['volumes_ml']['WT']:.3f}"
    hidden = [path.name for path in out.rglob(".*")]
    assert hidden == [".fastbts-summary.lock"], "nothing is left of what was written in part"
