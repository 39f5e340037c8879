"""The native engine on an emulated CUDA device, whose tensor cores are those of tests/simt."""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastbts import EngineSpec, Segmenter, load_engine
from fastbts.device.cuda import CudaWorkspace
from fastbts.device.runtime import Runtime, Stream
from fastbts.engine.backends.base import baked_text
from fastbts.engine.backends.native import Slot
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.file import write_engine_file
from fastbts.engine.load import read_engine
from fastbts.engine.onnx_graph import read_graph
from tests.fakes import emulated_cuda
from tests.training.conftest import Exported
from tests.training.tiny import MECHANISMS, randomize_zeros, rounded, tiny
from training.clip.prompts import ORTHONORMAL
from training.model import UNet3d

SPEC = EngineSpec(stride=16, window=(32, 32, 32))
SHAPE = (1, 4, 32, 48, 32)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["plain", "semantic"])
def network(request: pytest.FixtureRequest) -> UNet3d:
    on = MECHANISMS if request.param == "semantic" else ()
    return rounded(randomize_zeros(tiny(*on)).eval())


with_mechanisms = pytest.mark.parametrize("network", ["semantic"], indirect=True)


@pytest.fixture(scope="module")
def path(network: UNet3d, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("native") / "tiny.fbts"
    payloads = {"model.onnx": exported(network, SPEC)}
    write_engine_file(path, SPEC, payloads, prompts={"encoder": ORTHONORMAL})
    return path


@pytest.fixture(scope="module")
def x() -> NDArray[np.float32]:
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    x[:, :, :5] = 0
    return x


def check(logits: NDArray[np.float32], network: UNet3d, x: NDArray[np.float32]) -> None:
    """float16 has 11 bits of mantissa; through some 15 layers about three digits are left."""
    with torch.inference_mode():
        exact = network(torch.from_numpy(x)).numpy()
    assert np.abs(logits - exact).max() <= 5e-3 * np.abs(exact).max()
    assert np.square(logits - exact).mean() <= 2e-3**2 * np.square(exact).mean()


def test_it_agrees_with_torch(network: UNet3d, path: Path, x: NDArray[np.float32]) -> None:
    with emulated_cuda() as cuda:
        with closing(load_engine(path, backend="native")) as engine:
            logits = engine.infer(x)
            n_first = len(cuda.launches)
            again = engine.infer(x)
        assert engine.description["precision"] == "fp16"
        assert len(cuda.launches) == 2 * n_first
        del engine
        gc.collect()
        assert cuda.alive() == {}
        assert cuda.wrong_device == []
    check(logits, network, x)
    assert np.array_equal(again, logits), "two runs give the same bits"


@with_mechanisms
def test_its_work_can_be_captured(network: UNet3d, path: Path, x: NDArray[np.float32]) -> None:
    """From the second call on a stream it allocates nothing and waits for nothing."""
    with emulated_cuda() as cuda, closing(load_engine(path, backend="native")) as engine:
        runtime, workspace = Runtime(), CudaWorkspace(0)
        stream = Stream(runtime, 0)
        tensor, logits = (
            workspace.put(x, "tensor"),
            workspace.kept("logits", (1, 3, *SHAPE[2:]), np.float32),
        )
        workspace.wait()
        given: dict[str, Any] = {"out": logits, "stream": stream.handle}
        engine.infer(tensor, **given)
        first = logits.get() if runtime("cudaStreamSynchronize", stream.handle) is None else None
        workspace.clear(logits)
        workspace.wait()
        mode = runtime.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        runtime("cudaStreamBeginCapture", stream.handle, mode)
        engine.infer(tensor, **given)
        graph = runtime("cudaStreamEndCapture", stream.handle)
        launched = runtime("cudaGraphInstantiate", graph, 0)
        runtime("cudaGraphLaunch", launched, stream.handle)
        stream.wait()
        replayed = logits.get()
        runtime("cudaGraphExecDestroy", launched)
        runtime("cudaGraphDestroy", graph)
        assert cuda.faults == []
        workspace.close()
    assert first is not None
    check(first, network, x)
    assert np.array_equal(replayed, first)


@with_mechanisms
def test_memory_is_freed_after_the_work_of_a_call(path: Path, x: NDArray[np.float32]) -> None:
    """The workspace's stream, in whose order memory is freed, waits for the caller's stream."""
    file = read_engine(path)
    plan, text = read_plan(read_graph(file.payloads["model.onnx"]), str(path)), baked_text(file)
    with emulated_cuda() as cuda:
        slot, workspace, stream = Slot(plan, 0), CudaWorkspace(0), Stream(Runtime(), 0)
        tensor, logits = workspace.put(x, "tensor"), workspace.zeros((1, 3, *SHAPE[2:]), "f4")
        workspace.wait()
        there = cuda.view(logits.address, logits.shape, logits.dtype, 0)
        slot.enqueue(tensor, text, logits, stream.handle)
        assert not there.any(), "the work is queued"
        slot.workspace.wait()
        assert there.all()
        slot.workspace.close()
        workspace.close()


@with_mechanisms
def test_streams_share_memory_when_the_work_on_one_is_done(
    path: Path, x: NDArray[np.float32]
) -> None:
    with emulated_cuda() as cuda, closing(load_engine(path, backend="native")) as engine:
        workspace, streams = CudaWorkspace(0), [Stream(Runtime(), 0) for _ in range(3)]
        tensor = workspace.put(x, "tensor")
        results = [workspace.kept(f"out {i}", (1, 3, *SHAPE[2:]), "f4") for i in range(3)]
        workspace.wait()
        used = []
        for i, (out, stream) in enumerate(zip(results, streams, strict=True)):
            if i == 2:
                streams[0].wait()
            engine.infer(tensor, out=out, stream=stream.handle)
            used.append(cuda.used(0))
        assert used[0] < used[1] == used[2]
        for stream in streams:
            stream.wait()
        first, *others = workspace.get(*results)
        assert all(np.array_equal(first, other) for other in others)
        workspace.close()


@pytest.mark.guard
def test_a_case_is_segmented_on_the_device(
    network: UNet3d, path: Path, small_case: tuple[NDArray[Any], NDArray[np.float64]]
) -> None:
    """The whole way, but for a few voxels whose logits are near 0 in float16."""
    images, affine = small_case
    images = images[:, 2:18, 4:34, 1:17]  # the emulation takes a second per thousand voxels
    with Segmenter(path, backend="onnxruntime", warm_up=False) as on_cpu:
        expected = on_cpu.predict(images, affine=affine)
    with (
        emulated_cuda() as cuda,
        Segmenter(path, backend="native", device="cuda", warm_up=False) as segmenter,
    ):
        labels = segmenter.predict(images, affine=affine).labels
        assert "conv3d_kernel" in cuda.launches
        assert "label_kernel" in cuda.launches
    assert expected.labels.any()
    assert (labels == expected.labels).mean() >= 0.998
