"""What all commands share: errors are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts import EngineFileError, load_engine
from fastbts.cli import app
from fastbts.engine.file import write_engine_file
from fastbts.spec import EngineSpec
from tests.conftest import unknown_node


def test_errors_are_one_line(tmp_path: Path) -> None:
    """OpenVINO's message about a network that it cannot convert has several."""
    path = tmp_path / "unknown.fbts"
    write_engine_file(path, EngineSpec(), {"model.onnx": unknown_node()})
    with pytest.raises(EngineFileError, match="\n"):
        load_engine(path, backend="openvino")
    result = CliRunner().invoke(app, ["bench", "--engine", str(path), "--backend", "openvino"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {path}: openvino cannot load the network: ")
