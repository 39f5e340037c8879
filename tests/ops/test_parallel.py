from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("parallel.cpp")


@pytest.mark.guard
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "flags",
    [[], ["-DNO_THREADS"], ["-g", "-fsanitize=thread"]],
    ids=["threads", "no threads to be had", "thread sanitizer"],
)
def test_every_item_once_and_errors_reach_the_caller(flags: list[str], tmp_path: Path) -> None:
    """Compiled on its own, as no op can make a worker fail."""
    binary, options = tmp_path / "parallel", ["-std=c++17", "-pthread", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["c++", *options, *flags, SOURCE, "-o", binary], check=True)
    result = subprocess.run([binary], check=True, capture_output=True, text=True)
    n_cpus = len(os.sched_getaffinity(0))
    assert result.stdout == f"from a worker after 2 others, {n_cpus} cpus"
