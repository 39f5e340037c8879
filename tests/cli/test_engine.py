"""`fastbts info`; the other commands on engine files are tested with what they call."""

from __future__ import annotations

import subprocess
import sys

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


def test_info_loads_no_backend() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from fastbts.cli import app; "
        "assert CliRunner().invoke(app, ['info', '--json']).exit_code == 0; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & set(RUNTIMES)
