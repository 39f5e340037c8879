"""Helpers of the tests that run engines on fakes of CUDA and TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastbts.device.arrays import DeviceArray
from fastbts.device.cuda import CudaWorkspace
from fastbts.engine.backends.tensorrt import TensorRTEngine
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import FakeTensorRT, voxel_network

SMALL, LARGE = (1, 4, 16, 16, 16), (1, 4, 16, 48, 24)
Load = Callable[..., TensorRTEngine]
"""Loads a plan of a `FakeTensorRT`: (trt, device="cuda", **record)."""


def installed(cuda: FakeCuda, patch: pytest.MonkeyPatch, **options: Any) -> FakeTensorRT:
    trt = FakeTensorRT(cuda, **options)
    trt.install(patch)
    return trt


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def check(engine: TensorRTEngine, shape: tuple[int, ...], seed: int = 0) -> None:
    """Host arrays in, the right logits out."""
    x = noise(shape, seed)
    np.testing.assert_array_equal(engine.infer(x), voxel_network(x, None))


class OnDevice:
    """Tensor and logits on a device, as a prediction has them."""

    def __init__(self, shape: tuple[int, ...], index: int = 0) -> None:
        self.workspace, self.x = CudaWorkspace(index), noise(shape)
        self.tensor = self.workspace.put(self.x, "tensor")
        n, _, *sides = shape
        self.logits = self.workspace.kept("logits", (n, 3, *sides), np.float32)

    def infer(self, engine: TensorRTEngine) -> DeviceArray:
        return engine.infer(self.tensor, out=self.logits, stream=self.workspace.stream)

    def check(self) -> None:
        (logits,) = self.workspace.get(self.logits)
        np.testing.assert_array_equal(logits, voxel_network(self.x, None))
