"""The profile of the network's layers, on a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import layers, network_tables, variants
from benchmarks.peak import peak_gflops
from fastbts.engine.file import write_engine_file
from tests.training.conftest import Exported
from tests.training.kinds import CONFIGS, randomized, spec_of

CONFIG = next(c for c in CONFIGS if c.patch == 2 and c.semantic.fusion)
PLAIN = next(c for c in CONFIGS if c.patch == 2 and not c.semantic.fusion)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, exported: Exported) -> Path:
    path = tmp_path_factory.mktemp("engine") / "tiny.fbts"
    content = {"model.onnx": exported(randomized(CONFIG), spec_of(CONFIG))}
    write_engine_file(path, spec_of(CONFIG), content)
    return path


@pytest.mark.slow
def test_layers_have_times_and_work(
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, side = tmp_path / "layers.json", 2 * CONFIG.stride
    shape = [str(side)] * 3
    options = ["--engine", str(engine), "--json", str(out), "--rounds", "1", "--shape", *shape]
    monkeypatch.setattr(layers, "peak_gflops", lambda precision: {"matrix product": 1e9})
    monkeypatch.setattr(layers, "PRECISIONS", ("fp32", "int8"))
    monkeypatch.setattr(sys, "argv", ["layers", *options])
    layers.main()
    printed, results = capsys.readouterr().out, json.loads(out.read_text())
    assert "int8: not measured" in printed
    found = results["precisions"]["fp32"]
    convolutions = [x for x in found["layers"] if x["kind"] == "convolutions"]
    finest = convolutions[0]
    n_voxels, (_, n, *_) = (side // 2) ** 3, finest["shape"]
    n_in = 8 * CONFIG.n_modalities
    assert finest["gflop"] == pytest.approx(2e-9 * n_voxels * 27 * n * n_in)
    assert finest["gb"] == pytest.approx(4e-9 * (n_voxels * (n + n_in) + 27 * n * n_in), rel=0.01)
    everything = found["kinds"]["all"]
    assert everything["ms"] == pytest.approx(sum(x["ms"] for x in found["layers"]), abs=0.01)
    assert "fp32: peak" in printed
    assert "| fp32 | " in network_tables.layers_table(results)


@pytest.mark.slow
def test_the_peak_is_more_than_nothing() -> None:
    assert min(peak_gflops("fp32", n_threads=1, matrix=64, side=4).values()) > 0


def test_the_peak_is_of_the_precision_that_was_asked_for() -> None:
    from benchmarks.peak import _check

    with pytest.raises(
        RuntimeError, match="expected a kernel in int8, OpenVINO chose jit_gemm_f32"
    ):
        _check("jit_gemm_f32", "int8")


@pytest.mark.slow
def test_variants_are_exported_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(variants.OpenVINOEngine, "build", lambda *_: {})
    names, spec = ["skips added", "joined, then 1^3", "one convolution less"], spec_of(PLAIN)
    variants.export(tmp_path, PLAIN, spec, names)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    variants.export(tmp_path, PLAIN, spec, names)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    side = 2 * PLAIN.stride
    found = variants.measure(tmp_path, names, (side, side, side), 1)
    assert all(found[name]["fp32"] > 0 for name in names)
    results = {"cpu": "1.0 on CPU: fp32", "rounds": 1, "ms": {"a": {"fp32": 8}, "b": {"fp32": 6}}}
    assert "| b | 6 (-25%) |" in network_tables.variants_table(results)
