"""`fastbts info`; the other commands on engine files are tested with what they call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from fastbts.cli import app
from fastbts.engine.file import write_engine_file
from fastbts.spec import EngineSpec

RUNTIMES = (
    "openvino",
    "onnxruntime",
    "onnx",
    "nncf",
    "cuda",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "torch",
    "nibabel",
)


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in args])
    return result.exit_code, result.output


def test_info_loads_no_backend() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from fastbts.cli import app; "
        "assert CliRunner().invoke(app, ['info', '--json']).exit_code == 0; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & set(RUNTIMES)


def test_info_needs_no_backend(tmp_path: Path) -> None:
    script = "import sys; sys.modules['openvino'] = None; from fastbts.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "info", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(done.stdout)["spec"]["regions"] == ["WT", "TC", "ET"]
    code, output = run("info")
    assert code == 0
    assert "small-ET rule" in output
    assert re.search(r"^prompts +orthonormal prompts, not CLIP$", output, re.MULTILINE)
    write_engine_file(tmp_path / "y.fbts", EngineSpec(), {"model.onnx": b"onnx"})
    assert re.search(r"^prompts +none$", run("info", tmp_path / "y.fbts")[1], re.MULTILINE)
    (tmp_path / "x.fbts").write_bytes(b"nothing")
    code, output = run("info", tmp_path / "x.fbts")
    assert code == 1
    assert "not an engine file" in output


def test_info_names_the_labels(tmp_path: Path) -> None:
    assert re.search(r"labels +as in brats2021", run("info")[1])
    spec = EngineSpec(
        regions=("all", "core"), labels=((3, 9), (9,)), thresholds=(0.5, 0.5), modalities=("adc",)
    )
    write_engine_file(tmp_path / "z.fbts", spec, {"model.onnx": b"onnx"})
    assert re.search(r"labels +3 all, 9 core\n", run("info", tmp_path / "z.fbts")[1])


def test_info_says_whether_auto_takes_int8(tmp_path: Path) -> None:
    def shown(change: float) -> str:
        groups = {"SSA": {"n_cases": 3, "dice_change": change, "worst_case": -0.005}}
        build = {"backend": "openvino", "precision": "int8", "parity": {"groups": groups}}
        payloads = {"model.onnx": b"onnx"}
        write_engine_file(tmp_path / "x.fbts", EngineSpec(), payloads, build=build)
        return run("info", tmp_path / "x.fbts")[1]

    assert re.search(
        r"^auto precision +int8 where the CPU has AVX512-VNNI, AVX-VNNI or AMX-INT8 \(here: .*\): "
        r"on 3 cases int8 changes mean Dice by \+0\.0010 \(SSA\), and that of the worst case",
        shown(0.001),
        re.MULTILINE,
    )
    assert re.search(
        "^auto precision +not int8, as it is worse than float32: on 3", shown(-1), re.M
    )
