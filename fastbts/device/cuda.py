"""The workspace of a CUDA device: one stream, memory in its order, and pinned staging."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts import _C
from fastbts.device.arrays import DeviceArray, contiguous
from fastbts.device.runtime import Memory, Pinned, Runtime, Stream
from fastbts.errors import InputError

ALIGNMENT = 256  # bytes, of what shares one block; that of cudaMalloc
PIECES = 4  # of a large upload: one is copied by the host while the one before is transferred


class CudaWorkspace:
    """Implements `Workspace` for one CUDA device; serves one prediction at a time.

    Args:
        index: Number of the device.
    Raises:
        DeviceError: There is no such device, or too little memory.
    """

    def __init__(self, index: int) -> None:
        self.device = f"cuda:{index}"
        self._index, self._runtime = index, Runtime()
        self._stream = Stream(self._runtime, index)
        self.stream: int | None = self._stream.handle
        self._kept: dict[str, Memory] = {}
        self._pinned: dict[str, Pinned] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.empty`."""
        return self._array(Memory(self._stream, _n_bytes(shape, dtype)), shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.zeros`."""
        return self.cleared(self.empty(shape, dtype))

    def cleared(self, array: DeviceArray) -> DeviceArray:
        """A dense array, after its elements became 0."""
        low, n_bytes = array.extent
        with self._runtime.on(self._index):
            self._runtime("cudaMemsetAsync", low, 0, n_bytes, self.stream)
        return array

    def kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.kept`."""
        n_bytes = _n_bytes(shape, dtype)
        if name not in self._kept or self._kept[name].n_bytes < n_bytes:
            self._kept.pop(name, None)  # first, so that there never are both
            self._kept[name] = Memory(self._stream, n_bytes)
        return self._array(self._kept[name], shape, dtype)

    def put(self, array: Any, name: str) -> DeviceArray:
        """See `Workspace.put`.

        Raises:
            InputError: The array is on another device.
        """
        if not isinstance(array, DeviceArray):
            return self._uploaded(np.asarray(array), name)
        if array.device != self.device:
            raise InputError(
                f"an array on {array.device}: expected one on {self.device} or in host memory; "
                "copy it there first"
            )
        if isinstance(array.owner, tuple):  # borrowed: our stream waits for its owner's work
            _C.describe(array.owner[0], self.stream or 0)
        return array

    def own(self, array: DeviceArray) -> DeviceArray:
        """See `Workspace.own`."""
        low, n_bytes = array.extent
        memory = Memory(self._stream, n_bytes)
        with self._runtime.on(self._index):
            self._runtime.copy(memory.address, low, n_bytes, self.stream)
        address = memory.address + array.address - low
        return DeviceArray(memory, address, array.shape, array.strides, array.dtype, self.device)

    def get(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """See `Workspace.get`."""
        begins = np.cumsum([0, *(_aligned(array.extent[1]) for array in arrays)])
        staged = self._staging("down", int(begins[-1]))
        parts = [
            staged[begin : begin + array.extent[1]]
            for begin, array in zip(begins, arrays, strict=False)
        ]
        with self._runtime.on(self._index):
            for part, array in zip(parts, arrays, strict=True):
                self._runtime.download(array.extent[0], part, self.stream)
        self.wait()
        return [array.on_host(part.copy()) for part, array in zip(parts, arrays, strict=True)]

    def wait(self) -> None:
        """See `Workspace.wait`."""
        self._stream.wait()

    def free_bytes(self) -> int:
        """Memory of the device that is free now."""
        with self._runtime.on(self._index):
            free, _ = self._runtime("cudaMemGetInfo")
        return int(free)

    def close(self) -> None:
        """Frees the kept memory; arrays that were given away keep theirs."""
        self._kept.clear()
        self._pinned.clear()

    def _array(self, memory: Memory, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        return contiguous(memory, memory.address, shape, dtype, self.device)

    def _staging(self, name: str, n_bytes: int) -> NDArray[np.uint8]:
        """Pinned memory that the next call with this name reuses."""
        if name not in self._pinned or len(self._pinned[name].array) < n_bytes:
            self._pinned.pop(name, None)
            self._pinned[name] = Pinned(self._runtime, self._index, max(1, n_bytes))
        return self._pinned[name].array[:n_bytes]

    def _uploaded(self, array: NDArray[Any], name: str) -> DeviceArray:
        """A copy in the array's order of axes in memory, through pinned memory."""
        if not array.ndim:
            return self._uploaded(array[None], name)[0]
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        source = array.transpose(order)
        staged = self._staging(name, array.nbytes).view(array.dtype).reshape(source.shape)
        there = self.kept(name, source.shape, array.dtype)
        with self._runtime.on(self._index):
            for rows in _pieces(len(source)):
                np.copyto(staged[rows], source[rows])
                address = there.address + rows.start * there.strides[0]
                self._runtime.upload(staged[rows], address, self.stream)
        return there.transpose(*np.argsort(order).tolist())


def _pieces(n: int) -> list[slice]:
    bounds = [n * i // PIECES for i in range(PIECES + 1)]
    return [slice(a, b) for a, b in pairwise(bounds) if a < b]


def _n_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
