"""`fastbts bench`, on a small phantom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts.cli import app
from tests.conftest import write_voxel_engine


@pytest.fixture
def voxel_engine(tmp_path: Path) -> str:
    return str(write_voxel_engine(tmp_path / "voxel.fbts"))


def bench(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bench", *options])
    return result.exit_code, result.output


def test_bench_reports_medians(small_phantom: None, voxel_engine: str) -> None:
    code, output = bench("--engine", voxel_engine, "--rounds", "1", "--json")
    assert code == 0, output
    table = json.loads(output)
    assert "fp32" in table
    assert all(row["total"] >= row["infer"] > 0 for row in table.values())


def test_bench_prints_a_table(small_phantom: None, voxel_engine: str) -> None:
    code, output = bench("--engine", voxel_engine, "--rounds", "1", "--backend", "onnxruntime")
    assert code == 0, output
    assert output.startswith("median ms")
    assert "\nfp32 " in output


def test_bench_needs_a_round() -> None:
    assert bench("--rounds", "0")[0] == 2
