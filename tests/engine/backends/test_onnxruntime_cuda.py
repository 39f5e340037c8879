"""ONNX Runtime on a CUDA device, on fakes: settings, streams, copies. Emulation: no GPU is used."""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from fastbts import DeviceError, load_engine
from fastbts.device.cuda import CudaWorkspace
from tests.conftest import write_voxel_engine
from tests.fakes import onnxruntime as fake
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.onnxruntime import FakeOnnxRuntime
from tests.fakes.tensorrt import voxel_network

SHAPE = (1, 4, 16, 16, 16)


@pytest.fixture
def ort(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    package = FakeOnnxRuntime(cuda)
    package.install(monkeypatch)
    return package


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_voxel_engine(tmp_path / "voxel.fbts")


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE, np.float32)


def test_all_of_the_fake_is_in_the_real_package() -> None:
    import onnxruntime as real

    for kind in (fake.IOBinding, fake.RunOptions, fake.InferenceSession):
        for name, value in vars(kind).items():
            if not name.startswith("_"):
                there = getattr(getattr(real, kind.__name__), name)
                if kind is not fake.RunOptions and name != "bind_output":
                    names = list(inspect.signature(there).parameters)
                    assert list(inspect.signature(value).parameters) == names, name
    outputs = list(inspect.signature(real.IOBinding.bind_output).parameters)
    assert outputs == list(inspect.signature(fake.IOBinding.bind_output).parameters)
    assert hasattr(real.RunOptions(), "terminate")


def test_settings_of_the_provider(ort: FakeOnnxRuntime, path: Path) -> None:
    engine = load_engine(path, device="cuda:1")
    assert engine.description["device"] == "cuda:1"
    (settings,) = ort.settings
    assert int(settings.pop("user_compute_stream")) > 2, "none of CUDA's default streams"
    assert settings == {
        "device_id": "1",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    load_engine(path, device="cuda", precision="tf32")
    assert (ort.settings[1]["device_id"], ort.settings[1]["use_tf32"]) == ("0", "1")


def test_host_arrays(ort: FakeOnnxRuntime, path: Path) -> None:
    engine = load_engine(path, device="cuda")
    for seed in range(2):
        logits = engine.infer(noise(seed))
        np.testing.assert_array_equal(logits, voxel_network(noise(seed), None))
    assert len(ort.settings) == 1


def test_arrays_of_the_device_are_bound_and_not_waited_for(
    cuda: FakeCuda, ort: FakeOnnxRuntime, path: Path
) -> None:
    engine, workspace = load_engine(path, device="cuda:1"), CudaWorkspace(1)
    x, logits = workspace.put(noise(), "x"), workspace.kept("out", (1, 3, 16, 16, 16), np.float32)
    n_waits = cuda.calls["cudaStreamSynchronize"]
    engine.infer(x, out=logits, stream=workspace.stream)  # type: ignore[call-arg]
    assert cuda.calls["cudaStreamSynchronize"] == n_waits
    (result,) = workspace.get(logits)
    np.testing.assert_array_equal(result, voxel_network(noise(), None))
    assert sum(cuda.copied("HostToDevice")) == noise().nbytes, "what the workspace put there"
    assert cuda.device == 0


def test_two_threads_have_a_session_each(ort: FakeOnnxRuntime, path: Path) -> None:
    engine, both = load_engine(path, device="cuda"), Barrier(2)
    ort.before_run = lambda: both.wait(10)
    got = dict[int, np.ndarray]()
    threads = [
        Thread(target=lambda seed=seed: got.update({seed: engine.infer(noise(seed))}))
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        np.testing.assert_array_equal(got[seed], voxel_network(noise(seed), None))
    assert len({settings["user_compute_stream"] for settings in ort.settings}) == 2


@pytest.mark.parametrize("closes", [True, False])
def test_sessions_end_after_their_work(
    cuda: FakeCuda, ort: FakeOnnxRuntime, path: Path, closes: bool
) -> None:
    engine, workspace = load_engine(path, device="cuda"), CudaWorkspace(0)
    x, logits = workspace.put(noise(), "x"), workspace.kept("out", (1, 3, 16, 16, 16), np.float32)
    engine.infer(x, out=logits, stream=workspace.stream)  # type: ignore[call-arg]
    if closes:
        engine.close()
    del engine
    gc.collect()
    assert cuda.alive()["Stream"] == 1, "that of the workspace"
    assert ort.n_early == 0
    (result,) = workspace.get(logits)
    np.testing.assert_array_equal(result, voxel_network(noise(), None))


def test_provider_that_cannot_start_is_an_error(ort: FakeOnnxRuntime, path: Path) -> None:
    ort.starts = False
    with pytest.raises(DeviceError, match=r"ONNX Runtime could not start CUDAExecutionProvider"):
        load_engine(path, device="cuda")


def test_device_that_does_not_exist(ort: FakeOnnxRuntime, path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cuda:5: this machine has 2 CUDA device\(s\)"):
        load_engine(path, device="cuda:5")
