"""A fake of CuPy over the fake CUDA runtime, as far as the tests use CuPy.

Arrays are in the memory of emulated devices (tests/fakes); only `get` reads them, after a wait.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import weakref
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.simt.emulated import cuda_capsule


def _runtime() -> Any:
    return importlib.import_module("cuda.bindings.runtime")


def _call(name: str, *arguments: Any) -> Any:
    """Calls the runtime and returns its value."""
    status, *values = getattr(_runtime(), name)(*arguments)
    assert status == 0, f"{name}: {status.name}"
    return values[0] if values else None


class _Memory:
    """An allocation; freed with the last array that uses it."""

    def __init__(self, n_bytes: int) -> None:
        self.device, self.address = _call("cudaGetDevice"), _call("cudaMalloc", n_bytes)
        weakref.finalize(self, _runtime().cudaFree, self.address)


class MemoryPointer:
    """An address in an allocation."""

    def __init__(self, mem: Any, ptr: int) -> None:
        self.mem, self.ptr = mem, ptr

    def __add__(self, n_bytes: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr + n_bytes)


class ndarray:
    """An array on an emulated device."""

    def __init__(
        self, shape: Any, dtype: Any, memptr: MemoryPointer, strides: Sequence[int] | None = None
    ) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype, self.data = np.dtype(dtype), memptr
        self.strides = tuple(strides or np.empty(self.shape, dtype).strides)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def device(self) -> Device:
        return Device(self.data.mem.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "data": (self.data.ptr if self.size else 0, False),
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.mem.device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> object:
        if stream not in (None, -1):  # it waits for the work on the array so far
            with Device(self.data.mem.device):
                event = _call("cudaEventCreateWithFlags", 2)
                _call("cudaEventRecord", event, _current().ptr)
                _call("cudaStreamWaitEvent", stream, event, 0)
                _call("cudaEventDestroy", event)
        return cuda_capsule(self._memory(), self.data.mem.device)

    def _memory(self) -> NDArray[Any]:
        """The array as NumPy sees it, without a wait."""
        if self.size == 0:
            return np.empty(self.shape, self.dtype)
        pointer = ctypes.cast(self.data.ptr, ctypes.POINTER(ctypes.c_byte))
        first = np.ctypeslib.as_array(pointer, (self.dtype.itemsize,)).view(self.dtype)
        return np.lib.stride_tricks.as_strided(first, self.shape, self.strides)

    def get(self, stream: Stream | None = None) -> NDArray[Any]:
        (stream or _current()).synchronize()
        return self._memory().copy()

    def set(self, array: NDArray[Any], stream: Stream | None = None) -> None:
        source = np.ascontiguousarray(array, self.dtype)
        assert source.shape == self.shape
        assert self._memory().flags.c_contiguous
        if self.size:
            kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
            to, handle = self.data.ptr, (stream or _current()).ptr
            _call("cudaMemcpyAsync", to, source.ctypes.data, self.nbytes, kind, handle)

    def fill(self, value: Any) -> None:
        self.set(np.full(self.shape, value, self.dtype))

    def __getitem__(self, index: Any) -> ndarray:
        index = index if isinstance(index, tuple) else (index,)
        full = index if any(i is Ellipsis for i in index) else (*index, Ellipsis)
        part = self._memory()[full]  # a view also where all axes are gone
        pointer = MemoryPointer(self.data.mem, part.ctypes.data)
        return ndarray(part.shape, part.dtype, pointer, part.strides)

    def __len__(self) -> int:
        return self.shape[0]

    def __int__(self) -> int:
        return int(self.get())

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def tolist(self) -> Any:
        return self.get().tolist()


class Stream:
    """A stream; within `with` it is the current one of all threads."""

    null: Stream

    def __init__(self, *, non_blocking: bool = False, ptr: int | None = None) -> None:
        made = ptr is None
        self.ptr = int(_call("cudaStreamCreateWithFlags", int(non_blocking))) if made else ptr

    def __enter__(self) -> None:
        _streams.append(self)

    def __exit__(self, *_: Any) -> None:
        _streams.pop()

    def synchronize(self) -> None:
        _call("cudaStreamSynchronize", self.ptr)

    def begin_capture(self) -> None:
        mode = _runtime().cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        _call("cudaStreamBeginCapture", self.ptr, mode)

    def end_capture(self) -> Graph:
        return Graph(_call("cudaGraphInstantiate", _call("cudaStreamEndCapture", self.ptr), 0))


Stream.null = Stream(ptr=0)
_streams = [Stream.null]


def _current() -> Stream:
    return _streams[-1]


class Graph:
    """What a stream captured."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        _call("cudaGraphLaunch", self._executable, stream.ptr)


class Device:
    """A device; within `with` it is the current one of this thread."""

    def __init__(self, index: int = 0) -> None:
        self.id, self._previous = index, 0

    def __enter__(self) -> None:
        self._previous = _call("cudaGetDevice")
        _call("cudaSetDevice", self.id)

    def __exit__(self, *_: Any) -> None:
        _call("cudaSetDevice", self._previous)

    def synchronize(self) -> None:
        with self:
            _call("cudaDeviceSynchronize")


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """An array full of the runtime's mark."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    memory = _Memory(math.prod(shape) * np.dtype(dtype).itemsize)
    return ndarray(shape, dtype, MemoryPointer(memory, memory.address))


def full(shape: Any, value: Any, dtype: Any = float) -> ndarray:
    array = empty(shape, dtype)
    array.fill(value)
    return array


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return full(shape, 0, dtype)


def asarray(array: Any) -> ndarray:
    """An array of another library there, or a copy on the current device, in C order."""
    if hasattr(array, "__cuda_array_interface__"):
        there = array.__cuda_array_interface__
        memory = SimpleNamespace(device=array.__dlpack_device__()[1], owner=array)
        pointer = MemoryPointer(memory, there["data"][0])
        return ndarray(there["shape"], there["typestr"], pointer, there["strides"])
    source = np.asarray(array)
    result = empty(source.shape, source.dtype)
    result.set(source)
    return result


def asnumpy(array: ndarray) -> NDArray[Any]:
    return array.get()


cuda = SimpleNamespace(Stream=Stream, Device=Device, set_allocator=lambda _: None)
