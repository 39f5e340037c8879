"""A fake of TensorRT and TensorRT-RTX that computes in NumPy on the fake CUDA runtime. It proves
how we call TensorRT; not that TensorRT takes a network, computes it right, or captures it.

    cuda = FakeCuda(n_devices=2)
    trt = FakeTensorRT(cuda)        # rtx=True for TensorRT-RTX
    cuda.install(monkeypatch), trt.install(monkeypatch)
    write_fake_plan(path, trt)      # an engine file that `load_engine(path)` runs on the fakes

Rules that it keeps: a context runs on the device that was current when the engine was loaded; it
needs all addresses, shapes of the profile, and as much memory as the shapes ask for; a capture of
a shape fails unless that shape has run directly before; TensorRT-RTX captures by itself if asked.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet, finalize, ref

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts.engine.file import read_engine_file, write_engine_file
from tests.conftest import write_voxel_engine
from tests.fakes.cuda_machine import CudaError
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import Status

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
REFUSED = "the fake was told to refuse"
BYTES_PER_VOXEL = 73
"""Of the shipped network's activations, as TensorRT-RTX 1.7 reports for its largest shape."""


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(IntEnum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


Strategy, Severity = ExecutionContextAllocationStrategy, ILogger.Severity


def voxel_network(volume: Floats, text: Floats | None) -> Floats:
    """The network of `write_voxel_engine`; a text is added by its first column."""
    logits = (volume[:, [0, 3, 2]] - 1) * np.float32(4)
    return logits if text is None else logits + text[None, :, 0, None, None, None]


class FakeTensorRT:
    """The package `tensorrt`, or `tensorrt_rtx_bindings`.

    Args:
        cuda: The machine that it runs on.
        network: (volume, text or None) -> logits.
        rtx: Whether it is TensorRT-RTX.
        inputs: Names of the network's inputs.
        profile: Least, best and largest shape of "volume".
    Attributes:
        runs: How often a context was asked to run: "direct", "captured", "own graph" (replayed by
            TensorRT-RTX), "failed".
        failures: Failing runs still to come: "direct", "captured", "refused": in a capture, which
            stays valid; or "late": after the work was enqueued.
        capturable: Whether this TensorRT-RTX says that streams can be captured.
        contexts: Contexts that are alive.
        n_loaded: How many plans were loaded.
        n_compiled: How often TensorRT-RTX compiled kernels for a shape.
        log: The logger of the process: the first one that is given, as in TensorRT.
    """

    def __init__(
        self,
        cuda: FakeCuda,
        network: Callable[[Floats, Floats | None], Floats] = voxel_network,
        *,
        rtx: bool = False,
        inputs: tuple[str, ...] = ("volume",),
        profile: tuple[Shape, ...] = ((1, 4, 8, 8, 8), (1, 4, 16, 24, 16), (1, 4, 256, 256, 256)),
    ) -> None:
        self.cuda, self.network, self.rtx = cuda, network, rtx
        self.inputs, self.profile, self.n_regions = inputs, profile, 3
        self.runs: Counter[str] = Counter()
        self.failures: list[str] = []
        self.capturable = True
        self.contexts = WeakSet[IExecutionContext]()
        self.n_loaded = self.n_compiled = 0
        self.log: Any = None

    def install(self, patch: pytest.MonkeyPatch | None = None) -> ModuleType:
        patch = pytest.MonkeyPatch() if patch is None else patch
        module = ModuleType("tensorrt_rtx_bindings" if self.rtx else "tensorrt")
        names: dict[str, Any] = {
            "__version__": "1.7.1.116" if self.rtx else "11.4.0.106",
            "ILogger": ILogger,
            "ExecutionContextAllocationStrategy": Strategy,
            "Runtime": lambda logger: Runtime(self, logger),
        }
        if self.rtx:
            names["CudaGraphStrategy"] = CudaGraphStrategy
        module.__dict__.update(names)
        patch.setitem(sys.modules, module.__name__, module)
        return module

    @property
    def backend(self) -> str:
        return "tensorrt-rtx" if self.rtx else "tensorrt"


class Runtime:
    def __init__(self, trt: FakeTensorRT, logger: ILogger) -> None:
        if not getattr(logger, "_made", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        trt.log = logger if trt.log is None else trt.log
        self._trt, self._log = trt, trt.log

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if serialized_engine != b"a fake plan":
            self._log.log(Severity.ERROR, "the plan is damaged")
            return None
        self._trt.n_loaded += 1
        return ICudaEngine(self._trt, self._log)


class IRuntimeCache:
    def __init__(self) -> None:
        self._compiled: set[Any] = set()  # shapes


class IRuntimeConfig:
    def __init__(self) -> None:
        self._strategy = Strategy.STATIC
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self._cache = IRuntimeCache()

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: Strategy) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> Strategy:
        return self._strategy


class ICudaEngine:
    def __init__(self, trt: FakeTensorRT, log: ILogger) -> None:
        self._trt, self._log, self._device = trt, log, trt.cuda.device

    @property
    def device_memory_size_v2(self) -> int:
        return activation_bytes(self._trt.profile[2])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return list(self._trt.profile)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(
        self, strategy: Strategy | IRuntimeConfig = Strategy.STATIC
    ) -> IExecutionContext | None:
        if self._trt.cuda.device != self._device:
            self._log.log(Severity.ERROR, "the engine is of another device")
            return None
        config = IRuntimeConfig()
        if isinstance(strategy, IRuntimeConfig):
            config = strategy
        else:
            config.set_execution_context_allocation_strategy(strategy)
        try:
            return IExecutionContext(self._trt, self._log, self._device, config)
        except CudaError as error:
            self._log.log(Severity.ERROR, f"no memory for a context: {error}")
            return None


class IExecutionContext:
    def __init__(
        self, trt: FakeTensorRT, log: ILogger, device: int, config: IRuntimeConfig
    ) -> None:
        self._trt, self._log, self._device = trt, log, device
        self._own_graph = config.cuda_graph_strategy == CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)  # address and size
        self._ran: Any = None  # shapes of the last direct run
        self._cache = config._cache
        self._recorded: Any = None  # what TensorRT-RTX's own graph was captured for
        self._managed = config.get_execution_context_allocation_strategy() == Strategy.USER_MANAGED
        if not self._managed:
            size = activation_bytes(trt.profile[2])
            address = trt.cuda.allocate(size)
            self._memory = (address, size)
            finalize(self, trt.cuda.release, address)
        trt.contexts.add(self)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        least, _, most = self._trt.profile
        fits = name != "volume" or all(
            a <= n <= b for a, n, b in zip(least, shape, most, strict=True)
        )
        if name not in self._trt.inputs or not fits:
            self._log.log(Severity.ERROR, f"{name} of shape {shape} is not in the profile")
            return False
        if self._shapes.get(name) != tuple(shape):
            self._ran = None
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in (*self._trt.inputs, "logits"):
            self._log.log(Severity.ERROR, f"no tensor {name}")
            return False
        self._addresses[name] = int(memory)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        if set(self._shapes) != set(self._trt.inputs):
            self._log.log(Severity.ERROR, "some shapes are not set")
            return 0
        return activation_bytes(self._shapes["volume"])

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._managed:
            self._log.log(Severity.ERROR, "this context has its own memory")
        self._memory = (int(memory), int(size))

    def is_stream_capturable(self, stream: int) -> bool:
        return self._trt.capturable and self._ran == self._shapes

    def execute_async_v3(self, stream_handle: int) -> bool:
        trt, capturing = self._trt, self._trt.cuda.is_capturing(stream_handle)
        kind = "captured" if capturing else "direct"
        wrong = self._wrong(kind, stream_handle)
        if not wrong:
            try:
                touched = list(self._addresses.values())
                trt.cuda.enqueue(stream_handle, self._work(), *touched, self._memory[0])
                wrong = self._late()
            except CudaError as error:
                wrong = str(error)
        if wrong:
            trt.runs["failed"] += 1
            self._log.log(Severity.ERROR, wrong)
            if wrong != REFUSED:
                trt.cuda.invalidate(stream_handle)  # no effect outside of a capture
            return False
        baked = (dict(self._shapes), dict(self._addresses), self._memory)
        if self._own_graph and not capturing:
            kind = "own graph" if self._recorded == baked else "direct"
            self._recorded = baked
        if not capturing:
            self._ran = dict(self._shapes)
            self._compile()
        trt.runs[kind] += 1
        return True

    def _wrong(self, kind: str, stream: int) -> str:
        """Why this cannot run; empty if it can."""
        trt = self._trt
        if kind in trt.failures:
            trt.failures.remove(kind)
            return "the fake was told to fail"
        if kind == "captured" and "refused" in trt.failures:
            trt.failures.remove("refused")
            return REFUSED
        if trt.cuda.device != self._device:
            trt.cuda.wrong_device.append(f"a context of device {self._device}")
            return "another device is current"
        if set(self._shapes) != set(trt.inputs) or {*trt.inputs, "logits"} != set(self._addresses):
            return "shapes or addresses are not set"
        if self._memory[1] < activation_bytes(self._shapes["volume"]):
            return "the context has too little memory"
        if kind == "captured" and self._ran != self._shapes:
            return "this shape has not run before the capture"
        if kind == "captured" and trt.rtx and not trt.capturable:
            return "the stream cannot be captured"
        return ""

    def _compile(self) -> None:
        shapes = tuple(self._shapes.items())
        self._trt.n_compiled += shapes not in self._cache._compiled
        self._cache._compiled.add(shapes)

    def _late(self) -> str:
        if "late" not in self._trt.failures:
            return ""
        self._trt.failures.remove("late")
        return "the fake was told to fail, late"

    def _work(self) -> Callable[[], None]:
        trt, shapes, addresses = self._trt, dict(self._shapes), dict(self._addresses)
        device, memory, alive = self._device, self._memory, ref(self)

        def run() -> None:
            if alive() is None:
                raise CudaError(Status.cudaErrorIllegalAddress)
            trt.cuda.view(memory[0], (memory[1],), np.uint8, device)[:1] = 0
            given = {
                name: trt.cuda.view(addresses[name], shapes[name], np.float32, device)
                for name in trt.inputs
            }
            volume = given["volume"]
            shape = (len(volume), trt.n_regions, *volume.shape[2:])
            logits = trt.cuda.view(addresses["logits"], shape, np.float32, device)
            logits[:] = trt.network(volume, given.get("text"))

        return run


def activation_bytes(shape: Shape) -> int:
    """Of volumes (B, M, D, H, W), in multiples of 256."""
    n = shape[0] * math.prod(shape[2:]) * BYTES_PER_VOXEL
    return -(-n // 256) * 256


def write_fake_plan(path: Path, trt: FakeTensorRT, **record: Any) -> Path:
    """The engine of `write_voxel_engine` with a plan of the fake."""
    source = read_engine_file(write_voxel_engine(path))
    about = {
        "backend": trt.backend,
        "version": "1.7.1.116" if trt.rtx else "11.4.0.106",
        "fastbts": "0",
        "precision": "fp32",
        "max_batch": 1,
        "compute_capability": None if trt.rtx else "8.9",
        "plugins": False,
        "plugin_version": "1",
        "ranges": {},
        **record,
    }
    payloads = {
        "model.onnx": bytes(source.payloads["model.onnx"]),
        "engine.plan": b"a fake plan",
        "engine.json": json.dumps(about).encode(),
    }
    build = {"backend": trt.backend, "precision": "fp32"}
    write_engine_file(path, source.spec, payloads, build=build)
    return path
