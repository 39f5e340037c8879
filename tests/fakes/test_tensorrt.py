"""The fake TensorRT: it offers only what the real bindings have, and keeps TensorRT's rules."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

from tests.fakes import tensorrt as fake
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import Capture
from tests.fakes.tensorrt import FakeTensorRT, Strategy

SHAPE = (1, 4, 8, 8, 16)


class Log(fake.ILogger):
    def __init__(self) -> None:
        fake.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: fake.ILogger.Severity, msg: str) -> None:
        self.lines.append(msg)


def fake_tensorrt(cuda: FakeCuda, **options: Any) -> FakeTensorRT:
    """One whose largest shape takes 19 MB, as all of it is written."""
    return FakeTensorRT(cuda, profile=((1, 4, 8, 8, 8), SHAPE, (1, 4, 64, 64, 64)), **options)


def context(cuda: FakeCuda, trt: FakeTensorRT, *config: Any) -> tuple[fake.IExecutionContext, Log]:
    """A context with its shape and addresses, on a stream."""
    log = Log()
    engine = fake.Runtime(trt, log).deserialize_cuda_engine(b"a fake plan")
    assert engine is not None
    made = engine.create_execution_context(*config)
    assert made is not None
    assert made.set_input_shape("volume", SHAPE)
    made.set_tensor_address("volume", cuda.allocate(4 * int(np.prod(SHAPE))))
    made.set_tensor_address("logits", cuda.allocate(3 * 8 * 8 * 16 * 4))
    return made, log


def test_all_of_it_is_in_the_real_bindings() -> None:
    real = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    for kind in (
        fake.ILogger,
        fake.IRuntimeCache,
        fake.IRuntimeConfig,
        fake.ICudaEngine,
        fake.IExecutionContext,
        fake.Runtime,
    ):
        there = getattr(real, kind.__name__)
        for name, value in vars(kind).items():
            if not name.startswith("_"):
                assert hasattr(there, name), f"{kind.__name__}.{name}"
                if inspect.isfunction(value):
                    assert parameters(value) in overloads(getattr(there, name)), name
    for enum in (fake.Strategy, fake.CudaGraphStrategy, fake.ILogger.Severity):
        there = real.ILogger if enum is fake.ILogger.Severity else real
        members = getattr(there, enum.__name__).__members__
        assert issubclass(enum, IntEnum)
        assert {each.name: each.value for each in enum} == {
            name: int(value) for name, value in members.items()
        }


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def overloads(method: Any) -> list[list[str]]:
    """Names of the parameters in each signature that pybind11 writes into a docstring."""
    signatures = re.findall(rf"^(?:\d+\. )?{method.__name__}\((self.*)\) ->", method.__doc__, re.M)
    return [re.findall(r"(?:^|, )(\w+)(?=:)", each) for each in signatures]


def test_memory_of_a_context() -> None:
    cuda = FakeCuda(n_bytes=32 << 20)
    trt = fake_tensorrt(cuda)
    static, _ = context(cuda, trt)
    assert cuda.used(0) > 64**3 * 73, "for the largest shape"
    assert fake.ICudaEngine(trt, Log()).create_execution_context() is None, "no more memory"
    del static
    assert cuda.used(0) < 1e6

    managed, log = context(cuda, fake_tensorrt(cuda), Strategy.USER_MANAGED)
    stream = cuda.cudaStreamCreate()
    assert not managed.execute_async_v3(int(stream))
    assert log.lines == ["the context has too little memory"]
    size = managed.update_device_memory_size_for_shapes()
    assert size == 8 * 8 * 16 * 73
    managed.set_device_memory(cuda.allocate(size), size)
    assert managed.execute_async_v3(int(stream))


def test_a_capture_needs_a_run_before() -> None:
    cuda = FakeCuda()
    trt = fake_tensorrt(cuda)
    made, log = context(cuda, trt)
    api, stream = cuda.module(), cuda.cudaStreamCreate()
    api.cudaStreamBeginCapture(stream, Capture.cudaStreamCaptureModeThreadLocal)
    assert not made.execute_async_v3(int(stream))
    assert log.lines == ["this shape has not run before the capture"]
    assert api.cudaStreamEndCapture(stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    assert made.execute_async_v3(int(stream))
    api.cudaStreamBeginCapture(stream, Capture.cudaStreamCaptureModeThreadLocal)
    assert made.execute_async_v3(int(stream))
    assert api.cudaStreamEndCapture(stream)[1] is not None
    assert trt.runs == {"failed": 1, "direct": 1, "captured": 1}


def test_another_device_is_refused() -> None:
    cuda = FakeCuda(n_devices=2)
    made, log = context(cuda, fake_tensorrt(cuda))
    cuda.cudaSetDevice(1)
    assert not made.execute_async_v3(int(cuda.cudaStreamCreate()))
    assert log.lines == ["another device is current"]


def test_rtx_captures_by_itself() -> None:
    cuda = FakeCuda()
    trt = fake_tensorrt(cuda, rtx=True)
    config = fake.IRuntimeConfig()
    config.cuda_graph_strategy = fake.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    made, _ = context(cuda, trt, config)
    for _ in range(3):
        assert made.execute_async_v3(int(cuda.cudaStreamCreate()))
    assert trt.runs == {"direct": 1, "own graph": 2}
