"""The free memory: the least that machine, limits and cgroups leave; what a pass needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastbts import DeviceError, load_engine
from fastbts.device import host_memory
from fastbts.device.host_memory import check_limits, free_bytes
from fastbts.pipeline.memory import ONE_PASS_BYTES, choose_mode, memory_explained, pass_bytes
from tests.conftest import VoxelEngine, write_voxel_engine

MB = 1 << 20


def write(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path / "proc", {"meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {900 * 1024} kB"})
    return tmp_path / "proc"


def v2(folder: Path, most: object, used: int, cached: int = 0) -> None:
    stat = f"anon 1\ninactive_file {cached * MB}\nactive_file 7"
    write(folder, {"memory.max": most, "memory.current": used * MB, "memory.stat": stat})


def test_the_machine_alone(proc: Path, tmp_path: Path) -> None:
    assert free_bytes(proc, tmp_path / "none") == 900 * MB


def test_unknown_without_procfs(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "none", tmp_path / "none") is None


def test_cgroup_v2_of_this_process_and_those_above(proc: Path, tmp_path: Path) -> None:
    write(proc, {"self/cgroup": "0::/pods/one"})
    v2(tmp_path / "cgroup/pods/one", "max", 100)
    assert free_bytes(proc, tmp_path / "cgroup") == 900 * MB
    v2(tmp_path / "cgroup/pods/one", 700 * MB, 100)
    assert free_bytes(proc, tmp_path / "cgroup") == 600 * MB
    v2(tmp_path / "cgroup/pods", 800 * MB, 500, cached=200)
    assert free_bytes(proc, tmp_path / "cgroup") == 500 * MB
    v2(tmp_path / "cgroup/pods/two", 1, 0)
    assert free_bytes(proc, tmp_path / "cgroup") == 500 * MB, "another one"


def test_a_container_sees_its_cgroup_at_the_top(proc: Path, tmp_path: Path) -> None:
    write(proc, {"self/cgroup": "0::/docker/0123"})
    v2(tmp_path / "cgroup", 300 * MB, 100)
    assert free_bytes(proc, tmp_path / "cgroup") == 200 * MB


def test_cgroup_v1(proc: Path, tmp_path: Path) -> None:
    write(proc, {"self/cgroup": "5:devices:/\n4:memory:/docker/0123\n0::/"})
    files = {
        "memory.limit_in_bytes": 400 * MB,
        "memory.usage_in_bytes": 350 * MB,
        "memory.stat": f"inactive_file 5\ntotal_inactive_file {20 * MB}",
    }
    write(tmp_path / "cgroup/memory", files)
    assert free_bytes(proc, tmp_path / "cgroup") == 70 * MB
    write(tmp_path / "cgroup/memory", {"memory.limit_in_bytes": 9223372036854771712})
    assert free_bytes(proc, tmp_path / "cgroup") == 900 * MB, "no limit"


def test_more_used_than_allowed_is_nothing_free(proc: Path, tmp_path: Path) -> None:
    write(proc, {"self/cgroup": "0::/"})
    v2(tmp_path / "cgroup", 300 * MB, 400)
    assert free_bytes(proc, tmp_path / "cgroup") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_ulimits_count(limit: str) -> None:
    script = (
        "import resource; from fastbts.device.host_memory import free_bytes; "
        f"resource.setrlimit(resource.{limit}, (2 << 30, -1)); print(free_bytes())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2 << 30
    assert resource.getrlimit(getattr(resource, limit))[0] != 2 << 30


def test_a_limit_that_leaves_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "limit_bytes", lambda: 580_000_000)
    check_limits(580_000_000, "fastbts predict")
    with pytest.raises(MemoryError, match=r"^fastbts predict needs about 1.00 GB, .* 0.58 GB$"):
        check_limits(1_000_000_000, "fastbts predict")
    monkeypatch.setattr(host_memory, "limit_bytes", lambda: None)
    check_limits(1 << 60, "anything")
    monkeypatch.setattr(host_memory, "limit_bytes", lambda: 0)
    with pytest.raises(DeviceError, match=r"light.fbts: out of memory: .*\(ulimit -v, -d\)"):
        load_engine()


@pytest.mark.parametrize(("device", "ran"), [("cpu", []), ("cuda", [True])])
def test_what_a_limit_leaves_no_room_for_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, device: str, ran: list[bool]
) -> None:
    """OpenVINO ended the process in one of thirty such calls."""
    engine, n, tried = VoxelEngine(), 10**6, []
    engine.description["device"] = device
    monkeypatch.setattr(host_memory, "limit_bytes", lambda: pass_bytes(engine, n) - 1)
    message = "needs about 0.16 GB for 1000000 voxels, 0.10 GB were free"
    refused = pytest.raises(DeviceError, match=message) if device == "cpu" else nullcontext()
    with refused, memory_explained(engine, n, 10**8, ""):
        tried.append(True)
    assert tried == ran


def test_one_pass_is_chosen_where_it_fits_or_nothing_else_would() -> None:
    engine, n = VoxelEngine(), 10**6
    assert choose_mode(engine, n, n // 10, "cpu", 10**6) == (
        "sliding",
        "one pass needs about 0.16 GB more, 0.00 GB are free",
    )
    assert choose_mode(engine, n, n // 10, "cpu", 10**9) == (
        "one-pass",
        "one pass needs about 0.16 GB more, 1.00 GB are free",
    )
    assert choose_mode(engine, n, n, "cpu", 0) == ("one-pass", "a sliding window is not smaller")
    assert choose_mode(engine, n, n // 10, "cpu", None) == (
        "one-pass",
        "the system does not say how much memory is free",
    )
    engine.description["device"] = "cuda"
    assert choose_mode(engine, n, n // 10, "cpu", 0)[0] == "one-pass"


def test_memory_that_the_engine_keeps_is_not_needed_again(tmp_path: Path) -> None:
    """Else the second of two equal cases could be run in windows, with other labels."""
    engine = load_engine(write_voxel_engine(tmp_path / "voxel.fbts"), precision="fp32")
    n = 16 * 16 * 24
    assert pass_bytes(engine, n) == n * ONE_PASS_BYTES["fp32"]
    engine.infer(np.zeros((2, 4, 16, 16, 24), np.float32))
    assert pass_bytes(engine, n) == 0
    assert pass_bytes(engine, 3 * n) == 2 * n * ONE_PASS_BYTES["fp32"]


def test_each_of_the_passes_at_once_needs_its_own_memory(tmp_path: Path) -> None:
    """What one of them may have is not counted twice."""
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    engine, n = load_engine(path, precision="fp32", n_threads=2, parallel=2), 10**6
    assert choose_mode(engine, n, n // 10, "cpu", 330 * 10**6)[0] == "one-pass"
    assert choose_mode(engine, n, n // 10, "cpu", 310 * 10**6) == (
        "sliding",
        "2 passes at once, each of which needs about 0.16 GB more, 0.31 GB are free",
    )
    small, large = (np.zeros((1, 4, 16, 16, side), np.float32) for side in (16, 24))
    engine.infer(large)
    assert engine.n_voxels_held == 0, "the other stream holds nothing"
    with engine._held(large[0, 0].size):  # another call runs
        engine.infer(small)
    assert engine.n_voxels_held == small[0, 0].size


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_pass_takes_what_is_stated(backend: str) -> None:
    script = f"""
import numpy as np
from fastbts import load_engine
from fastbts.device.host_memory import _fields, PROC
from fastbts.pipeline.memory import pass_bytes
engine = load_engine(backend={backend!r})
engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))
tensor = np.ones((1, 4, 96, 96, 96), np.float32)
before, expected = _fields(PROC / "self/status")["VmRSS:"], pass_bytes(engine, tensor[0, 0].size)
engine.infer(tensor)
print((_fields(PROC / "self/status")["VmHWM:"] - before << 10) / expected)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.4 < float(done.stdout) <= 1
