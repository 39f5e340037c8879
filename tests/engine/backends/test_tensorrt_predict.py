"""`Segmenter` with TensorRT on emulated devices: the real pipeline and kernels, a fake TensorRT."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from fastbts import Segmenter
from tests.conftest import write_voxel_engine
from tests.fakes import emulated_cuda
from tests.fakes.tensorrt import FakeTensorRT, write_fake_plan


@pytest.mark.parametrize("rtx", [False, True])
def test_labels_are_those_of_the_cpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_case: tuple[np.ndarray, np.ndarray],
    rtx: bool,
) -> None:
    images, affine = small_case
    with Segmenter(write_voxel_engine(tmp_path / "cpu.fbts"), backend="onnxruntime") as on_cpu:
        expected = on_cpu.predict(images, affine=affine)
    assert expected.labels.any()
    with emulated_cuda(n_devices=2) as cuda:
        trt = FakeTensorRT(cuda, rtx=rtx)
        trt.install(monkeypatch)
        path = write_fake_plan(tmp_path / "plan.fbts", trt)
        for index in (0, 1):
            with Segmenter(path, device=f"cuda:{index}") as segmenter:
                results = [segmenter.predict(images, affine=affine) for _ in range(3)]
            for result in results:
                np.testing.assert_array_equal(result.labels, expected.labels)
                assert result.volumes_ml == expected.volumes_ml
        del segmenter, results, result
        gc.collect()
        assert trt.runs["own graph" if rtx else "captured"] >= 2
        assert cuda.alive() == {}
        assert cuda.wrong_device == []
