"""Fakes of a GPU's libraries, and the emulated CUDA devices that they make up.

`emulated_cuda` gives `fastbts` CUDA devices of host memory: the fake runtime of cuda_runtime.py,
and `fastbts._C` as tests/simt builds it, whose CUDA ops run on its streams. They show what is
called, copied and waited for, and what kernels compute; not how fast a GPU is, nor what only a
GPU's hardware does.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any

import pytest

from tests.fakes.cuda_machine import CudaError, Stream
from tests.fakes.cuda_runtime import FakeCuda
from tests.fakes.cuda_types import Kind, Status
from tests.simt.emulated import library, module_in_place

_NUMBERS = ctypes.POINTER(ctypes.c_int64)
_ANSWER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, _NUMBERS, _NUMBERS)


class EmulatedCuda(FakeCuda):
    """The fake runtime, whose streams also run kernels of the emulated `_C`.

    Attributes:
        launches: Kernels that `_C` launched, in order.
        faults: What kernels did wrong.
        used_by: What a test keeps as long as the devices.
    """

    used_by: object = None

    def __init__(self, n_devices: int = 1, n_bytes: int = 8 << 30, deferred: bool = True) -> None:
        super().__init__(n_devices, n_bytes, deferred)
        self.launches: list[str] = []
        self.faults: list[str] = []
        self._library = ctypes.CDLL(str(library()))
        self._library.simt_run.restype = ctypes.c_char_p
        self._callback = _ANSWER(self._answer)

    def install(self, patch: pytest.MonkeyPatch | None = None) -> ModuleType:
        module = super().install(patch)
        self._library.simt_connect(self._callback)
        return module

    def disconnect(self) -> None:
        """Lets `_C` be without a runtime again."""
        self._library.simt_connect(_ANSWER())

    def _answer(self, name: bytes, arguments: Any, out: Any) -> int:
        """A call of the runtime, or the launch of a kernel, by `_C`."""
        method = getattr(self, name.decode(), None)
        if method is None:
            return self._launched(name.decode(), *arguments[:2])
        given = list(arguments[: len(signature(method).parameters)])
        if name == b"cudaMemcpyAsync":
            given[3] = Kind(given[3])
        status, *values = self._bound(method)(*given)
        if name == b"cudaPointerGetAttributes":
            values = [values[0].type, values[0].device]
        for i, value in enumerate(values):
            out[i] = 0 if value is None else int(value)
        return int(status)

    def _launched(self, name: str, number: int, stream: int) -> int:
        self.calls[name] += 1
        try:
            self._check_failures(name)
            self.enqueue(stream, lambda: self._run_kernel(name, number))
        except CudaError as error:
            return int(error.status)
        self.launches.append(name)
        return 0

    def _run_kernel(self, name: str, number: int) -> None:
        message = self._library.simt_run(ctypes.c_int64(number))
        if message is not None:
            self.faults.append(f"{name}: {message.decode()}")
            raise CudaError(Status.cudaErrorIllegalAddress)

    def _stream(self, handle: Any) -> Stream:
        legacy, per_thread = 1, 2  # names of the default streams
        return super()._stream(0 if handle and int(handle) in (legacy, per_thread) else handle)


@contextmanager
def emulated_cuda(n_devices: int = 1, *, deferred: bool = True) -> Iterator[EmulatedCuda]:
    """Within it `fastbts`, `cuda.bindings.runtime` and `cupy` use emulated CUDA devices.

    Args:
        n_devices: How many.
        deferred: Work of a stream runs when something waits for it, so that a missing wait shows
            as wrong data.
    """
    machine = EmulatedCuda(n_devices, deferred=deferred)
    with module_in_place(), pytest.MonkeyPatch.context() as patch:
        machine.install(patch)
        patch.setitem(sys.modules, "cupy", import_module("tests.fakes.cupy"))
        try:
            yield machine
        finally:
            machine.disconnect()
    assert not machine.faults, machine.faults
