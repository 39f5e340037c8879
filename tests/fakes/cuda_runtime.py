"""A fake of `cuda.bindings.runtime` over host memory. It proves which calls we make, in which order
and on which device; not that a GPU computes anything, nor any speed, nor the races of a GPU.

    cuda = FakeCuda(n_devices=2)
    cuda.install(monkeypatch)   # `from cuda.bindings import runtime` now gives the fake
    cuda.calls["cudaGraphLaunch"], cuda.copies, cuda.used(0), cuda.fail("cudaMalloc")

It is stricter than CUDA: work for a stream or with memory of a device that is not the current one
fails (`wrong_device` lists it), and no memory is allocated in a capture.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from inspect import signature
from threading import get_ident
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.fakes.cuda_machine import (
    Copy,
    CudaError,
    Event,
    Graph,
    GraphExec,
    Machine,
    Mark,
    Stream,
    bytes_at,
)
from tests.fakes.cuda_types import (
    CONSTANTS,
    TYPES,
    Capture,
    Kind,
    Status,
    cudaEvent_t,
    cudaGraph_t,
    cudaGraphExec_t,
    cudaMemoryType,
    cudaStream_t,
    cudaStreamCaptureStatus,
)


class FakeCuda(Machine):
    """The functions of the CUDA runtime over a `Machine`."""

    def install(self, patch: pytest.MonkeyPatch | None = None) -> ModuleType:
        """Puts the fake in place of the real bindings, also where those are not installed; for
        the rest of the process without `patch`."""
        patch = pytest.MonkeyPatch() if patch is None else patch
        cuda, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        module = self.module()
        patch.setattr(cuda, "bindings", bindings, raising=False)
        patch.setattr(bindings, "runtime", module, raising=False)
        for each in (cuda, bindings, module):
            patch.setitem(sys.modules, each.__name__, each)
        return module

    def module(self) -> ModuleType:
        module = ModuleType("cuda.bindings.runtime")
        for name in dir(self):
            if name.startswith("cuda"):
                setattr(module, name, self._bound(getattr(self, name)))
        for each in TYPES:
            setattr(module, each.__name__, each)
        module.__dict__.update(CONSTANTS)
        return module

    # Devices.

    def cudaGetDeviceCount(self) -> int:
        if not self.n_devices:
            raise CudaError(Status.cudaErrorNoDevice)
        return self.n_devices

    def cudaGetDevice(self) -> int:
        return self.device

    def cudaSetDevice(self, device: int) -> None:
        if not 0 <= device < self.n_devices:
            raise CudaError(Status.cudaErrorInvalidDevice)
        self._thread.device = device

    def cudaGetDeviceProperties(self, device: int) -> SimpleNamespace:
        major, minor = self.compute_capability
        return SimpleNamespace(major=major, minor=minor, name=b"fake", totalGlobalMem=self.n_bytes)

    def cudaDeviceSynchronize(self) -> None:
        self._unsafe_in_capture()
        self._run_device(self.device)

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self.n_bytes - self.used(self.device), self.n_bytes

    # Memory.

    def cudaMalloc(self, size: int) -> int:
        self._unsafe_in_capture()
        return self._allocate(size, self.device)

    def cudaFree(self, devPtr: int) -> None:
        self._unsafe_in_capture()
        self._run_device(self.device)
        self._free(devPtr, on_device=True)

    def cudaMallocAsync(self, size: int, hStream: Any) -> int:
        self._unsafe_in_capture()
        stream = self._stream(hStream)
        self._check_device(stream.device, "a stream")
        return self._allocate(size, stream.device)

    def cudaFreeAsync(self, devPtr: int, hStream: Any) -> None:
        self._unsafe_in_capture()
        self.enqueue(hStream, lambda: self._free(devPtr, on_device=True), int(devPtr))

    def cudaMallocHost(self, size: int) -> int:
        self._unsafe_in_capture()
        return self._allocate(size, None)

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self.cudaMallocHost(size)

    def cudaFreeHost(self, ptr: int) -> None:
        self._unsafe_in_capture()
        self._run_device(self.device)
        self._free(ptr, on_device=False)

    def cudaPointerGetAttributes(self, ptr: int) -> SimpleNamespace:
        block, kind = self._block(ptr), cudaMemoryType
        if block is None:
            return SimpleNamespace(type=kind.cudaMemoryTypeUnregistered, device=-2)
        if block.device is None:
            return SimpleNamespace(type=kind.cudaMemoryTypeHost, device=self.device)
        return SimpleNamespace(type=kind.cudaMemoryTypeDevice, device=block.device)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: Kind) -> None:
        self._unsafe_in_capture()
        self._run_device(self.device, non_blocking=False)
        self.cudaMemcpyAsync(dst, src, count, kind, 0)
        self._run(self._default[self.device])

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Kind, stream: Any) -> None:
        to_device = kind != Kind.cudaMemcpyDeviceToHost
        from_device = kind != Kind.cudaMemcpyHostToDevice
        ends = [dst] * to_device + [src] * from_device
        pinned = all(self._block(end) is not None for end in (dst, src))
        pageable = bytes_at(src, count).copy() if not from_device and not pinned else None
        name, device = kind.name.removeprefix("cudaMemcpy"), self.device
        for end in ends:
            self.check_address(end)

        def copy() -> None:
            for end in ends:
                self._check_room(end, count, device)
            # CUDA has read pageable memory when the call returns; pinned memory is read now.
            bytes_at(dst, count)[:] = bytes_at(src, count) if pageable is None else pageable
            self.copies.append(Copy(name, count, pinned))

        self.enqueue(stream, copy, *ends)
        if not to_device and not pinned and not self.is_capturing(stream):
            self._run(self._stream(stream))  # CUDA returns when pageable memory is written

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> None:
        device = self.device

        def fill() -> None:
            self.view(devPtr, (count,), np.uint8, device)[:] = value

        self.enqueue(stream, fill, int(devPtr))

    # Streams and events.

    def cudaStreamCreate(self) -> cudaStream_t:
        return self.cudaStreamCreateWithFlags(0)

    def cudaStreamCreateWithFlags(self, flags: int) -> cudaStream_t:
        return cudaStream_t(self._add(Stream(self.device, blocking=not flags)))

    def cudaStreamDestroy(self, stream: Any) -> None:
        self._run(self._stream(stream))  # CUDA lets the work finish
        self._remove(stream, Stream)

    def cudaStreamSynchronize(self, stream: Any) -> None:
        self._illegal_in_capture(stream)
        self._run(self._stream(stream))

    def cudaStreamQuery(self, stream: Any) -> None:
        self._illegal_in_capture(stream)
        if self._stream(stream).queue:
            raise CudaError(Status.cudaErrorNotReady)

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        mark = self._get(event, Event).mark  # a later record does not count
        self.enqueue(stream, lambda: self._reach(mark))

    def cudaEventCreate(self) -> cudaEvent_t:
        return cudaEvent_t(self._add(Event(self.device)))

    def cudaEventCreateWithFlags(self, flags: int) -> cudaEvent_t:
        return self.cudaEventCreate()

    def cudaEventRecord(self, event: Any, stream: Any) -> None:
        recorded, to = self._get(event, Event), self._stream(stream)
        self._check_device(recorded.device, "an event")

        mark = Mark(to if to.captured is None else None)
        recorded.mark = mark

        def reach() -> None:
            mark.stream, mark.time_s = None, time.perf_counter()

        self.enqueue(stream, reach)

    def cudaEventSynchronize(self, event: Any) -> None:
        self._unsafe_in_capture()
        self._reach(self._get(event, Event).mark)

    def cudaEventQuery(self, event: Any) -> None:
        self._unsafe_in_capture()
        if self._get(event, Event).mark.stream is not None:
            raise CudaError(Status.cudaErrorNotReady)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> float:
        begun, ended = self._get(start, Event).mark, self._get(end, Event).mark
        if begun.stream or ended.stream:
            raise CudaError(Status.cudaErrorNotReady)
        return (ended.time_s - begun.time_s) * 1e3

    def cudaEventDestroy(self, event: Any) -> None:
        self._remove(event, Event)

    # Graphs.

    def cudaStreamIsCapturing(self, stream: Any) -> cudaStreamCaptureStatus:
        state = self._stream(stream)
        if state.captured is None:
            return cudaStreamCaptureStatus.cudaStreamCaptureStatusNone
        if state.invalid:
            return cudaStreamCaptureStatus.cudaStreamCaptureStatusInvalidated
        return cudaStreamCaptureStatus.cudaStreamCaptureStatusActive

    def cudaStreamBeginCapture(self, stream: Any, mode: Capture) -> None:
        state = self._stream(stream)
        self._check_device(state.device, "a stream")
        if state in self._default:
            raise CudaError(Status.cudaErrorStreamCaptureUnsupported)
        if state.captured is not None:
            raise CudaError(Status.cudaErrorIllegalState)
        state.captured, state.thread, state.mode = [], get_ident(), mode

    def cudaStreamEndCapture(self, stream: Any) -> cudaGraph_t:
        state = self._stream(stream)
        if state.captured is None:
            raise CudaError(Status.cudaErrorIllegalState)
        if state.thread != get_ident() and state.mode != Capture.cudaStreamCaptureModeRelaxed:
            raise CudaError(Status.cudaErrorStreamCaptureWrongThread)
        works, invalid = state.captured, state.invalid
        state.captured, state.invalid = None, False
        if invalid:
            raise CudaError(Status.cudaErrorStreamCaptureInvalidated)
        return cudaGraph_t(self._add(Graph(state.device, works)))

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> cudaGraphExec_t:
        recorded = self._get(graph, Graph)
        return cudaGraphExec_t(self._add(GraphExec(recorded.device, list(recorded.works))))

    def cudaGraphDestroy(self, graph: Any) -> None:
        self._remove(graph, Graph)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> None:
        graph = self._get(graphExec, GraphExec)
        self._check_device(graph.device, "a graph")
        self.enqueue(stream, lambda: [work() for work in graph.works] and None)

    def cudaGraphExecDestroy(self, graphExec: Any) -> None:
        self._remove(graphExec, GraphExec)

    # How it works.

    def _bound(self, method: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        """As the bindings do it: (status, *values), where values are None after an error."""
        returns = str(signature(method).return_annotation)
        n_values = 0 if returns == "None" else 2 if returns.startswith("tuple") else 1

        @wraps(method)
        def call(*arguments: Any) -> tuple[Any, ...]:
            with self._lock:
                self.calls[method.__name__] += 1
                try:
                    self._check_failures(method.__name__)
                    value = method(*arguments)
                except CudaError as error:
                    return (error.status, *[None] * n_values)
                values = {0: (), 1: (value,)}.get(n_values, value)
                return (Status.cudaSuccess, *values)

        return call
