"""Nothing that fastbts does uses a network: `strace` sees the system calls of all its processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastbts.engine.backends import BACKENDS
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case, write_case
from tests.conftest import write_voxel_engine

STRACE = shutil.which("strace")
pytestmark = [
    pytest.mark.guard,
    pytest.mark.slow,
    pytest.mark.skipif(STRACE is None, reason="strace is not installed: apt-get install strace"),
]
ON_CPU = [name for name, row in BACKENDS.items() if "cpu" in row.devices]
SETTINGS = ("ORT_DISABLE_TELEMETRY", "NNCF_CI", "CI")  # with which some libraries send nothing
WAIT = "import time; time.sleep({})"
WATCHED_S = 8
"""How long a process lives after its work: ONNX Runtime sends for the first time after seconds."""


def calls(tmp_path: Path, script: str) -> list[str]:
    """Internet calls of a Python script and of the processes that it starts."""
    log = tmp_path / "strace.log"
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = [str(STRACE), "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", script],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=900,
    )  # fmt: skip
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return re.findall(r".*AF_INET.*", log.read_text())


def command(*arguments: object, wait_s: int = WATCHED_S) -> str:
    """A script that runs a command and then stays alive."""
    return f"""
import sys, time
from typer.testing import CliRunner
from fastbts.cli import app
result = CliRunner().invoke(app, {[str(a) for a in arguments]!r})
assert result.exit_code == 0, result.output
time.sleep({wait_s})
"""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    write_case(make_case(0, shape=(64, 64, 48)), tmp_path / "case")
    return tmp_path / "case"


def test_strace_sees_internet_calls(tmp_path: Path) -> None:
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    assert any("socket(AF_INET" in call for call in calls(tmp_path, script))


@pytest.mark.parametrize("backend", ON_CPU)
def test_predict(tmp_path: Path, case: Path, backend: str) -> None:
    assert calls(tmp_path, command("predict", case, "-o", "out", "--backend", backend)) == []


def test_doctor(tmp_path: Path) -> None:
    assert calls(tmp_path, command("doctor")) == []


def test_demo(tmp_path: Path) -> None:
    assert calls(tmp_path, command("demo", "--out", "demo")) == []


@pytest.mark.parametrize("backend", ON_CPU)
def test_bench(tmp_path: Path, backend: str) -> None:
    assert calls(tmp_path, command("bench", "--rounds", 1, "--backend", backend)) == []


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32"), ("tensorrt-rtx", "fp32")],
)
def test_build(tmp_path: Path, case: Path, backend: str, precision: str) -> None:
    needed = "nncf" if precision == "int8" else BACKENDS[backend].package
    if find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    script = command(
        *("build", default_engine_path(), "-o", "x.fbts", "--backend", backend),
        *("--precision", precision, "--calibrate", case, "--accept-parity"),
    )
    assert calls(tmp_path, script) == []


ASKED_BY_RAY = {"169.254.169.254", "8.8.8.8"}
"""Which cloud this is, asked by Ray's dashboard; and where Ray sends nothing, to learn its own
address."""


def own_addresses() -> set[str]:
    """The loopback, and the address of this machine that other hosts see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.connect(("8.8.8.8", 80))
        return {"127.0.0.1", "::1", sender.getsockname()[0]}
    return {"127.0.0.1", "::1"}


def test_a_ray_cluster_on_this_machine_reaches_no_other(tmp_path: Path, case: Path) -> None:
    pytest.importorskip("ray.data", reason="needs fastbts[ray]")
    engine = write_voxel_engine(tmp_path / "voxel.fbts")
    script = command("predict", case, "-o", "out", "--engine", engine, "--ray", "local")
    out = re.compile(r"\b(?:connect|send\w+)\(.*?\"(?:::ffff:)?([\d.]+|[\da-f:]*:[\da-f:]+)\"")
    found = [out.search(call) for call in calls(tmp_path, script) if "htons(53)" not in call]
    hosts = {match[1] for match in found if match}
    assert hosts & own_addresses(), "strace sees Ray's own calls"
    assert hosts <= own_addresses() | ASKED_BY_RAY


@pytest.mark.parametrize("first", ["openvino", "nncf"])
def test_libraries_that_others_imported_first(tmp_path: Path, case: Path, first: str) -> None:
    """What those imports send is not ours; nothing is added to it."""
    if find_spec(first) is None:
        pytest.skip(f"{first} is not installed")
    imported = f"import {first}, time\n"
    build = command(
        *("build", default_engine_path(), "-o", "x.fbts", "--precision", "int8"),
        *("--calibrate", case, "--accept-parity"),
    )
    script = imported + command("predict", case, "-o", "out") + build
    own = calls(tmp_path, imported + WAIT.format(2 * WATCHED_S))
    assert len(calls(tmp_path, script)) <= len(own)
