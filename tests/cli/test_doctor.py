"""`fastbts doctor`, as a user runs it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts.cli import app
from fastbts.engine.backends import BACKENDS
from fastbts.engine.model_cache import store
from tests.fakes.cuda_runtime import FakeCuda


def doctor(*options: str) -> str:
    result = CliRunner().invoke(app, ["doctor", *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_doctor_lists_backends_and_install_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    checks = {check["name"]: check for check in json.loads(doctor("--json"))}
    assert set(BACKENDS) <= set(checks)
    assert checks["shipped engine"]["ok"]
    assert checks["openvino"]["ok"]
    assert re.match(r"(int8|bf16|fp32): this CPU ", checks["its precision"]["detail"])
    assert "fp32" in checks["openvino"]["detail"]
    assert not checks["onnxruntime"]["ok"]
    assert "pip install 'fastbts[onnxruntime]'" in checks["onnxruntime"]["detail"]
    assert "cuda devices" in checks


def test_doctor_lists_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(n_devices=2).install(monkeypatch)
    checks = {check["name"]: check for check in json.loads(doctor("--json"))}
    found = checks["cuda devices"]["detail"]
    assert found == "cuda:0 compute capability 8.9, cuda:1 compute capability 8.9"


def test_doctor_says_where_compiled_networks_are_and_why_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTBTS_CACHE", str(tmp_path / "cache"))
    store("key", lambda: bytes(10**6))
    checks = {check["name"]: check for check in json.loads(doctor("--json"))}
    found = checks["compiled networks"]
    assert found["ok"]
    assert found["detail"] == f"{tmp_path / 'cache'}: 1 networks, 1 MB"
    (tmp_path / "cache").chmod(0o755)
    checks = {check["name"]: check for check in json.loads(doctor("--json"))}
    assert not checks["compiled networks"]["ok"]
    assert "expected a folder of this user alone" in checks["compiled networks"]["detail"]


def test_doctor_prints_one_line_per_check() -> None:
    lines = [line.split(maxsplit=2) for line in doctor().splitlines()]
    assert {line[0] for line in lines} <= {"ok", "--"}
    assert ["ok", "openvino"] in [line[:2] for line in lines]
