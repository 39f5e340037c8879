"""The SLURM example as a shell script. `srun` is a fake: no SLURM runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastbts.cohort.summary import read_summary
from tests.cohort.cases import write_cases
from tests.conftest import write_voxel_engine

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples/slurm/predict_array.sh"
FAKE_SRUN = f"""\
#!/bin/sh
shift
exec {sys.executable} -m fastbts "$@"
"""


def test_the_parts_of_an_array_do_all_cases(tmp_path: Path) -> None:
    write_cases(tmp_path / "cohort", 4)
    engine = write_voxel_engine(tmp_path / "voxel.fbts")
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(FAKE_SRUN)
    srun.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "N_PARTS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "FASTBTS_OPTIONS": f"--engine {engine}",
    }
    for task in "12":
        done = subprocess.run(
            [SCRIPT, tmp_path / "cohort", tmp_path / "out"],
            env={**environment, "SLURM_ARRAY_TASK_ID": task},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"part {task} of 2: 2 of 4 cases" in done.stderr
    assert [row["state"] for row in read_summary(tmp_path / "out/summary.csv")] == ["done"] * 4


def test_the_example_says_its_number_of_parts_once() -> None:
    text = SCRIPT.read_text()
    assert "#SBATCH --array=1-8\n" in text
    assert "N_PARTS=${N_PARTS:-8}" in text


@pytest.mark.parametrize("given", [[], ["cohort"]])
def test_without_folders_it_says_so(given: list[str]) -> None:
    done = subprocess.run([SCRIPT, *given], capture_output=True, text=True)
    assert done.returncode
    assert "expected the folder" in done.stderr
