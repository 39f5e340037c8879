"""A fake of ONNX Runtime with the CUDA provider, in NumPy on the fake CUDA runtime. It proves what
we ask of ONNX Runtime and on which stream; not that it computes a network on a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import finalize

import numpy as np
import pytest

from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.tensorrt import Floats, voxel_network

CUDA = "CUDAExecutionProvider"


class IOBinding:
    def __init__(self) -> None:
        self._bound: dict[str, tuple[str, int, tuple[int, ...], int]] = {}
        self._host: dict[str, Floats] = {}

    def bind_cpu_input(self, name: str, arr_on_cpu: Floats) -> None:
        self._host[name] = arr_on_cpu

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: tuple[int, ...],
        buffer_ptr: int,
    ) -> None:
        assert element_type == np.float32
        self._bound[name] = (device_type, device_id, tuple(shape), buffer_ptr)

    bind_output = bind_input


class RunOptions:
    def __init__(self) -> None:
        self.terminate = False
        self._entries: dict[str, str] = {}

    def add_run_config_entry(self, arg0: str, arg1: str) -> None:
        self._entries[arg0] = arg1


class FakeOnnxRuntime:
    """The package `onnxruntime`, of `onnxruntime-gpu`.

    Attributes:
        settings: Of the CUDA provider, for each session that was made.
        starts: Whether the CUDA provider can be started.
        before_run: Called by each run in its thread.
        n_early: Sessions that were destroyed before their work was done.
    """

    def __init__(
        self,
        cuda: FakeCuda,
        network: Callable[[Floats, Floats | None], Floats] = voxel_network,
    ) -> None:
        self.cuda, self.network = cuda, network
        self.settings: list[dict[str, str]] = []
        self.starts = True
        self.n_early = 0
        self.before_run: Callable[[], Any] = lambda: None

    def install(self, patch: pytest.MonkeyPatch) -> ModuleType:
        module = ModuleType("onnxruntime")
        names: dict[str, Any] = {
            "__version__": "1.32.0",
            "get_available_providers": lambda: [CUDA, "CPUExecutionProvider"],
            "SessionOptions": SimpleNamespace,
            "RunOptions": RunOptions,
            "InferenceSession": lambda content, options, providers: InferenceSession(
                self, providers
            ),
        }
        module.__dict__.update(names)
        patch.setitem(sys.modules, module.__name__, module)
        return module

    def destroyed(self, stream: int) -> None:
        status, *_ = self.cuda.module().cudaStreamQuery(stream)
        self.n_early += status != 0


class InferenceSession:
    def __init__(self, ort: FakeOnnxRuntime, providers: list[tuple[str, dict[str, str]]]) -> None:
        ((self._provider, settings),) = providers
        self._ort = ort
        if self._provider == CUDA:
            ort.settings.append(settings)
            self._device = int(settings["device_id"])
            self._stream = int(settings["user_compute_stream"])
            finalize(self, ort.destroyed, self._stream)

    def get_providers(self) -> list[str]:
        return [self._provider if self._ort.starts else "CPUExecutionProvider"]

    def io_binding(self) -> IOBinding:
        return IOBinding()

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions) -> None:
        self._ort.before_run()
        cuda = self._ort.cuda
        cuda.cudaSetDevice(self._device)  # as ONNX Runtime does in the thread that runs it
        # Not `self`: work that is queued keeps no session.
        cuda.enqueue(self._stream, partial(compute, self._ort, self._device, iobinding))
        if "disable_synchronize_execution_providers" not in run_options._entries:
            assert cuda.module().cudaStreamSynchronize(self._stream)[0] == 0


def compute(ort: FakeOnnxRuntime, device: int, binding: IOBinding) -> None:
    def array(kind: str, index: int, shape: tuple[int, ...], address: int) -> Floats:
        if kind == "cuda":
            assert index == device
            return ort.cuda.view(address, shape, np.float32, index)
        return ort.cuda.host_view(address, shape, np.float32)

    given = {name: array(*where) for name, where in binding._bound.items()} | binding._host
    given["logits"][:] = ort.network(given["volume"], given.get("text"))
