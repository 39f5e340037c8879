"""The table of backends: every row is correct; one class with one row makes a complete backend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import DeviceError, EngineFileError, Segmenter, load_engine
from fastbts.build.engine import build_engine
from fastbts.build.parity import MIN_AGREEMENT
from fastbts.cli import app
from fastbts.engine.backends import BACKENDS, DEFAULT_BACKEND, Backend, precisions
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import BaseEngine, Opened, Options
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case, write_case


class ToyEngine(BaseEngine[int]):
    """Each region where the image of the same index is brighter than the mean."""

    backend = "toy"

    def _open(self, options: Options) -> Opened[int]:
        about = {"backend_version": "1", "precision": "fp32", "n_threads": options.n_threads}
        return Opened(lambda: 0, about)

    def _run(self, call: int, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        logits[:] = tensor[:, : logits.shape[1]]


class BrokenEngine(ToyEngine):
    """Its runtime fails: on loading if asked for threads, else on running."""

    def _open(self, options: Options) -> Opened[int]:
        if options.n_threads:
            raise RuntimeError("too many threads")
        return super()._open(options)

    def _run(self, call: int, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        raise RuntimeError("out of memory")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    row = Backend(
        name="toy",
        devices=("cpu",),
        precisions=("fp32",),
        engine=f"{__name__}:ToyEngine",
        package="numpy",
        install="pip install numpy",
    )
    monkeypatch.setitem(BACKENDS, row.name, row)
    return row.name


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_new_backend_loads(toy: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 32, 32, 48), np.float32)
    engine = load_engine(backend="toy", n_threads=3)
    np.testing.assert_array_equal(engine.infer(x), x[:, :3])
    assert engine.description["backend"] == "toy"
    assert engine.description["n_threads"] == 3


@pytest.mark.slow
def test_new_backend_builds(toy: str, tmp_path: Path, small_phantom: None) -> None:
    target = tmp_path / "toy.fbts"
    about = build_engine(default_engine_path(), target, backend="toy", accept_parity=True)
    assert about["backend"] == "toy"
    assert about["parity"]["label_agreement"] < 1, "it is another network"
    assert load_engine(target).description["backend"] == "toy"


def test_new_backend_is_shown_by_doctor(toy: str) -> None:
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json"))}
    assert checks["toy"]["ok"]
    assert checks["toy"]["detail"] == f"{np.__version__} on cpu: fp32"


def test_new_backend_segments(toy: str, tmp_path: Path) -> None:
    case = make_case(0, shape=(48, 48, 40))
    write_case(case, tmp_path / "case")
    run("predict", tmp_path / "case", "-o", tmp_path / "out", "--backend", "toy")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["engine"]["backend"] == "toy"
    assert Segmenter(backend="toy").predict(case.volume).report["engine"]["backend"] == "toy"


def test_errors_of_a_runtime_become_ours(monkeypatch: pytest.MonkeyPatch, toy: str) -> None:
    broken = replace(BACKENDS["toy"], engine=f"{__name__}:BrokenEngine")
    monkeypatch.setitem(BACKENDS, "toy", broken)
    with pytest.raises(
        EngineFileError, match=r"\.fbts: toy cannot load the network: too many threads"
    ):
        load_engine(backend="toy", n_threads=2)
    engine = load_engine(backend="toy")
    message = r"\.fbts: toy failed on a tensor of shape \(1, 4, 32, 32, 32\): out of memory"
    with pytest.raises(DeviceError, match=message):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))


def test_missing_package_is_reported_by_doctor(monkeypatch: pytest.MonkeyPatch, toy: str) -> None:
    row = replace(BACKENDS["toy"], package="no_such_package", install="pip install toy")
    monkeypatch.setitem(BACKENDS, "toy", row)
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json"))}
    assert not checks["toy"]["ok"]
    assert checks["toy"]["detail"].endswith("install it with: pip install toy")


@pytest.mark.parametrize("row", BACKENDS.values(), ids=BACKENDS)
def test_rows_match_their_classes(row: Backend) -> None:
    assert BACKENDS[row.name] is row
    assert row.engine_class().backend == row.name
    assert row.engine_class().row() is row
    assert row.devices
    assert row.precisions


def test_default_backend_needs_no_extra() -> None:
    row = BACKENDS[DEFAULT_BACKEND]
    assert row.checked_device("auto") == "cpu"
    row.check_precision("fp32")


def test_cuda_devices_are_numbered() -> None:
    assert BACKENDS["tensorrt"].checked_device("auto") == "cuda:0"
    assert BACKENDS["onnxruntime"].checked_device("cuda") == "cuda:0"
    assert BACKENDS["onnxruntime"].checked_device("cuda:1") == "cuda:1"


def test_every_precision_has_a_bound_of_parity() -> None:
    assert set(precisions()) == set(MIN_AGREEMENT)


def test_help_of_build_names_the_table() -> None:
    text = " ".join(run("build", "--help").replace("│", " ").split())
    assert ", ".join(BACKENDS) in text
