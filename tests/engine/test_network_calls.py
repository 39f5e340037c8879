"""Nothing that fastbts does uses a network: `strace` sees the system calls of all its processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fastbts import EngineSpec
from fastbts.engine.backends import BACKENDS
from fastbts.engine.file import write_engine_file
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
WATCHED_S = 8
"""How long a process lives after its work: ONNX Runtime sends for the first time after seconds."""


def calls(tmp_path: Path, code: str) -> list[str]:
    """Internet calls of a Python script and of the processes that it starts."""
    log = tmp_path / "strace.log"
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = [str(STRACE), "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=900,
    )  # fmt: skip
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return re.findall(r".*AF_INET.*", log.read_text())


def script(*commands: Sequence[object]) -> str:
    """A script that runs commands, each given by its arguments, and then stays alive."""
    lines = [[str(argument) for argument in arguments] for arguments in commands]
    return f"""
import time
from typer.testing import CliRunner
from fastbts.cli import app
for arguments in {lines!r}:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.output)
time.sleep({WATCHED_S})
"""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    write_case(make_case(0, shape=(64, 64, 48)), tmp_path / "case")
    return tmp_path / "case"


def test_strace_sees_internet_calls(tmp_path: Path) -> None:
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    assert any("socket(AF_INET" in call for call in calls(tmp_path, script))


@pytest.mark.parametrize("backend", ON_CPU)
def test_predict_and_bench(tmp_path: Path, case: Path, backend: str) -> None:
    predict = ("predict", case, "-o", "out", "--backend", backend)
    bench = ("bench", "--rounds", 1, "--backend", backend)
    assert calls(tmp_path, script(predict, bench)) == []


def test_demo_and_doctor(tmp_path: Path) -> None:
    assert calls(tmp_path, script(["demo", "--out", "demo"], ["doctor"])) == []


def write_convolutions(path: Path) -> Path:
    """An engine file of two convolutions: NNCF takes a minute for the shipped network."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, pads = np.random.default_rng(0), {"kernel_shape": [3] * 3, "pads": [1] * 6}
    weights = [
        numpy_helper.from_array(rng.standard_normal((n, 4, 3, 3, 3), np.float32), name)
        for name, n in (("first", 4), ("second", 3))
    ]
    nodes = [
        helper.make_node("Conv", ["volume", "first"], ["features"], **pads),
        helper.make_node("Conv", ["features", "second"], ["logits"], **pads),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", n, "d", "h", "w"])
        for name, n in (("volume", 4), ("logits", 3))
    ]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    spec = EngineSpec(name="two", stride=8, window=(16, 24, 16))
    write_engine_file(path, spec, {"model.onnx": model.SerializeToString()})
    return path


def build(folder: Path, case: Path, backend: str, precision: str) -> list[object]:
    """Arguments of a command that builds an engine file."""
    int8 = precision == "int8"
    engine = write_convolutions(folder / "two.fbts") if int8 else default_engine_path()
    to = ("-o", f"{precision}.fbts", "--backend", backend, "--precision", precision)
    return ["build", engine, *to, "--calibrate", case, "--accept-parity"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tensorrt-rtx"])
def test_build(tmp_path: Path, case: Path, backend: str) -> None:
    if find_spec(BACKENDS[backend].package) is None:
        pytest.skip(f"{BACKENDS[backend].package} is not installed")
    assert calls(tmp_path, script(build(tmp_path, case, backend, "fp32"))) == []


def test_build_int8(tmp_path: Path, case: Path) -> None:
    if find_spec("nncf") is None:
        pytest.skip("nncf is not installed")
    assert calls(tmp_path, script(build(tmp_path, case, "openvino", "int8"))) == []


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
    predict = ("predict", case, "-o", "out", "--engine", engine, "--ray", "local")
    out = re.compile(r"\b(?:connect|send\w+)\(.*?\"(?:::ffff:)?([\d.]+|[\da-f:]*:[\da-f:]+)\"")
    found = [
        out.search(call) for call in calls(tmp_path, script(predict)) if "htons(53)" not in call
    ]
    hosts = {match[1] for match in found if match}
    assert hosts & own_addresses(), "strace sees Ray's own calls"
    assert hosts <= own_addresses() | ASKED_BY_RAY


@pytest.mark.parametrize("first", ["openvino", "nncf"])
def test_libraries_that_others_imported_first(tmp_path: Path, case: Path, first: str) -> None:
    """What those imports send is not ours; nothing is added to it."""
    if find_spec("nncf") is None:
        pytest.skip("nncf is not installed")
    imported = f"import {first}, time\n"
    predict = ("predict", case, "-o", "out")
    ours = script(predict, build(tmp_path, case, "openvino", "int8"))
    own = calls(tmp_path, f"{imported}time.sleep({WATCHED_S})")
    assert len(calls(tmp_path, imported + ours)) <= len(own)
