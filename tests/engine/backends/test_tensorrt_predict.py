"""`Segmenter` with TensorRT on emulated devices: the real pipeline and kernels, a fake TensorRT."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from fastbts import Segmenter, SegmenterOptions, load_engine
from fastbts.segmentation import Segmentation
from tests.conftest import write_voxel_engine
from tests.engine.backends.on_fakes import SMALL
from tests.fakes import emulated_cuda
from tests.fakes.tensorrt import FakeTensorRT, voxel_network, write_fake_plan

Case = tuple[np.ndarray, np.ndarray]


def on_cpu(folder: Path, case: Case, options: SegmenterOptions | None = None) -> Segmentation:
    path = write_voxel_engine(folder / "cpu.fbts")
    with Segmenter(path, backend="onnxruntime", options=options) as segmenter:
        result = segmenter.predict(case[0], affine=case[1])
    assert result.labels.any()
    return result


@pytest.mark.parametrize("rtx", [False, True])
def test_labels_are_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_case: Case, rtx: bool
) -> None:
    expected = on_cpu(tmp_path, small_case)
    with emulated_cuda(n_devices=2) as cuda:
        trt = FakeTensorRT(cuda, rtx=rtx)
        trt.install(monkeypatch)
        path = write_fake_plan(tmp_path / "plan.fbts", trt)
        for index in (0, 1):
            with Segmenter(path, device=f"cuda:{index}") as segmenter:
                results = [segmenter.predict(small_case[0], affine=small_case[1]) for _ in range(3)]
            for result in results:
                np.testing.assert_array_equal(result.labels, expected.labels)
                assert result.volumes_ml == expected.volumes_ml
        del segmenter, results, result
        gc.collect()
        assert trt.runs["own graph" if rtx else "captured"] >= 2
        assert cuda.alive() == {}
        assert cuda.wrong_device == []


def test_windows_run_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_case: Case
) -> None:
    options = SegmenterOptions(mode="sliding")
    expected = on_cpu(tmp_path, small_case, options)
    with emulated_cuda() as cuda:
        profile = tuple((b, 4, n, n, n) for b, n in ((1, 8), (3, 16), (3, 64)))
        trt = FakeTensorRT(cuda, profile=profile)
        trt.install(monkeypatch)
        path = write_fake_plan(tmp_path / "plan.fbts", trt, max_batch=3)
        with Segmenter(path, device="cuda", options=options, warm_up=False) as segmenter:
            result = segmenter.predict(small_case[0], affine=small_case[1])
        np.testing.assert_array_equal(result.labels, expected.labels)
        n_windows = result.report["windows"]["count"]  # of the engine's size, unlike on the CPU
        assert n_windows > 6
        n_runs = trt.runs["direct"] + cuda.calls["cudaGraphLaunch"]
        assert n_runs == -(-n_windows // 3)
        assert cuda.calls["cudaGraphLaunch"] >= 1


def test_arrays_of_cupy_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(SMALL, np.float32)
    with emulated_cuda() as cuda:
        import cupy  # the fake

        trt = FakeTensorRT(cuda)
        trt.install(monkeypatch)
        engine = load_engine(write_fake_plan(tmp_path / "plan.fbts", trt), device="cuda")
        made, stream = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
        with made:  # the engine's stream waits for the work on this one
            tensor, out = cupy.empty(x.shape, x.dtype), cupy.empty((1, 3, 16, 16, 16), x.dtype)
            tensor.set(x)
            assert engine.infer(tensor, out=out, stream=stream) is out  # type: ignore[call-arg]
        np.testing.assert_array_equal(out.get(stream), voxel_network(x, None))
        assert [copy.kind for copy in cuda.copies] == ["HostToDevice"], "that of the test"
        engine.close()
