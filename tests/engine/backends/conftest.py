"""Fixtures of the engines on CUDA devices: fakes, whose work waits until it is waited for.

Emulation: the tests show nothing of a GPU's speed, nor that TensorRT computes the network.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastbts import load_engine
from fastbts.engine.backends.tensorrt import TensorRTEngine
from tests.engine.backends.on_fakes import Load, installed
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import FakeTensorRT, write_fake_plan


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """Two devices, whose work waits until it is waited for."""
    fake = FakeCuda(n_devices=2, deferred=True)
    fake.install(monkeypatch)
    yield fake
    gc.collect()
    assert not fake.alive(), "nothing is left on the devices"
    assert not fake.wrong_device


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def trt(
    request: pytest.FixtureRequest, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> FakeTensorRT:
    return installed(cuda, monkeypatch, rtx=request.param == "tensorrt-rtx")


@pytest.fixture
def full(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """Not TensorRT-RTX: we capture the graphs."""
    return installed(cuda, monkeypatch)


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads a plan of the fake; closes it in the end."""
    loaded: list[TensorRTEngine] = []

    def load(trt: FakeTensorRT, device: str = "cuda", **record: object) -> TensorRTEngine:
        path = write_fake_plan(tmp_path / f"{len(loaded)}.fbts", trt, **record)
        engine = load_engine(path, device=device)
        assert isinstance(engine, TensorRTEngine)
        loaded.append(engine)
        return engine

    yield load
    for engine in loaded:
        engine.close()
