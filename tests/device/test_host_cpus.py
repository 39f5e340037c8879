"""How many CPUs this process may use: by its affinity, and by the limits of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastbts import load_engine
from fastbts.device import host_cpus
from fastbts.device.host_cpus import n_cpus, n_limited_cpus
from tests.conftest import write_voxel_engine


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cpus, "_n_allowed", lambda: 8)


def limited(folder: Path, cgroup: str, files: dict[str, str]) -> int:
    """What a process in this cgroup may use."""
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content}\n")
    return n_limited_cpus(folder / "proc", folder / "cgroup")


def test_no_limit(tmp_path: Path) -> None:
    assert limited(tmp_path, "0::/", {}) == 0
    assert limited(tmp_path, "0::/", {"cgroup/cpu.max": "max 100000"}) == 0
    files = {"cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert limited(tmp_path, "1:cpu:/", files) == 0


@pytest.mark.parametrize(
    ("quota", "n"), [(400_000, 4), (150_000, 2), (20_000, 1), (800_000, 0), (1_600_000, 0)]
)
def test_the_limit_of_a_container(tmp_path: Path, quota: int, n: int) -> None:
    """Rounded up; none that is not below the CPUs of the process."""
    assert limited(tmp_path, "0::/docker/1", {"cgroup/cpu.max": f"{quota} 100000"}) == n
    v1 = {"quota": quota, "period": 100_000}
    files = {f"cgroup/cpu,cpuacct/cpu.cfs_{name}_us": str(us) for name, us in v1.items()}
    (tmp_path / "cgroup/cpu.max").unlink()
    assert limited(tmp_path, "3:cpu,cpuacct:/docker/1\n1:memory:/", files) == n


def test_the_least_of_the_cgroups_above_counts(tmp_path: Path) -> None:
    files = {"cgroup/pods/one/cpu.max": "max 100000", "cgroup/pods/cpu.max": "300000 100000"}
    assert limited(tmp_path, "0::/pods/one", files) == 3


def test_engines_take_no_more_threads_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    monkeypatch.setattr("fastbts.engine.backends.base.n_limited_cpus", lambda: 1)
    assert load_engine(path).description["n_threads"] == 1
    assert load_engine(path, n_threads=2).description["n_threads"] == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_the_affinity_of_the_process_counts() -> None:
    script = """
import os
os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
from fastbts import load_engine
from fastbts.device.host_cpus import n_cpus
print(n_cpus(), load_engine().description["n_threads"], load_engine(parallel=2).parallel)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "1 1 1\n"


def test_ops_are_told_the_limit() -> None:
    """When the package is imported; tests/ops/parallel.cpp tests what C++ does with it."""
    script = """
import os, sys
from pathlib import Path
from unittest.mock import MagicMock
files = {"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "250000 100000"}
Path.read_text = lambda path: files.get(str(path), "")
os.sched_getaffinity = lambda process: range(8)
module = sys.modules["fastbts._C"] = MagicMock()
import fastbts
print(module.limit_cpus.call_args_list)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[call(3)]\n"


def test_all_cpus_where_nothing_limits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cpus, "n_limited_cpus", lambda: 0)
    assert n_cpus() == 8
    monkeypatch.setattr(host_cpus, "n_limited_cpus", lambda: 3)
    assert n_cpus() == 3
