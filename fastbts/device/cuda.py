"""The workspace of a CUDA device: one stream, memory in its order, and pinned staging."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts import _C, ops
from fastbts.device.arrays import Borrowed, DeviceArray, DeviceImages, contiguous
from fastbts.device.runtime import Memory, Pinned, Runtime, Stream
from fastbts.errors import InputError

ALIGNMENT = 256  # bytes, of what shares one block; that of cudaMalloc
PIECES = 4  # of a large upload: each is transferred when the host has copied it
LARGE = 1 << 20  # bytes


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
        self._copiers: ThreadPoolExecutor | None = None
        self._later: list[_Later] = []
        self._in_flight = set[str]()  # uploads since the last wait

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.empty`."""
        return self._array(Memory(self._stream, _n_bytes(shape, dtype)), shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.zeros`."""
        array = self.empty(shape, dtype)
        self.clear(array)
        return array

    def kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.kept`."""
        n_bytes = _n_bytes(shape, dtype)
        if name not in self._kept or self._kept[name].n_bytes < n_bytes:
            self._kept.pop(name, None)  # first, so that there never are both
            self._kept[name] = Memory(self._stream, n_bytes)
        return self._array(self._kept[name], shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """See `Workspace.scratch`."""
        return self.kept(name, shape, dtype)

    def put(self, array: Any, name: str) -> DeviceArray:
        """See `Workspace.put`.

        Raises:
            InputError: The array is on another device.
        """
        if isinstance(array, DeviceImages):
            return self._gathered(array, name)
        if isinstance(array, DeviceArray):
            return self._entered(array)
        return self._uploaded(np.asarray(array), name)

    def sampled(self, view: DeviceArray, steps: Sequence[int], name: str) -> DeviceArray:
        """See `Workspace.sampled`."""
        d, h, w = (-(-n // step) for n, step in zip(view.shape[1:], steps, strict=True))
        out = self.kept(name, (len(view), d, h, w), np.float32)
        every = np.diag([*steps, 1.0])
        ops.resample_affine(view, every, (d, h, w), nearest=True, out=out, stream=self.stream)
        return out

    def copy(self, source: DeviceArray, to: DeviceArray) -> None:
        """See `Workspace.copy`."""
        with self._runtime.on(self._index):
            self._runtime.copy(to.address, source.address, source.nbytes, self.stream)

    def clear(self, array: DeviceArray) -> None:
        """See `Workspace.clear`."""
        with self._runtime.on(self._index):
            self._runtime("cudaMemsetAsync", array.address, 0, array.nbytes, self.stream)

    def own(self, array: DeviceArray) -> DeviceArray:
        """See `Workspace.own`."""
        own = self.empty(array.shape, array.dtype)
        self.copy(array, own)
        return own

    def get(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """See `Workspace.get`."""
        later, self._later = self._later, []
        fetched = self._fetched([*arrays, *(one.array for one in later)])
        for one, value in zip(later, fetched[len(arrays) :], strict=True):
            one.value = value
        return fetched[: len(arrays)]

    def get_later(self, array: DeviceArray) -> Callable[[], NDArray[Any]]:
        """See `Workspace.get_later`."""
        one = _Later(array)
        self._later.append(one)

        def value() -> NDArray[Any]:
            if one.value is None:
                self.get()
            assert one.value is not None
            return one.value

        return value

    def _fetched(self, arrays: Sequence[DeviceArray]) -> list[NDArray[Any]]:
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
        self._in_flight.clear()

    def free_bytes(self) -> int:
        """See `Workspace.free_bytes`."""
        with self._runtime.on(self._index):
            free, _ = self._runtime("cudaMemGetInfo")
        return int(free)

    def reset(self) -> None:
        """See `Workspace.reset`."""
        self._later.clear()
        self._stop_copying()
        self.wait()

    def close(self) -> None:
        """See `Workspace.close`."""
        self._stop_copying()
        self._kept.clear()
        self._pinned.clear()

    def _stop_copying(self) -> None:
        """Ends the threads that write to pinned memory, also after an upload that failed."""
        if self._copiers is not None:
            self._copiers.shutdown()
            self._copiers = None

    def _array(self, memory: Memory, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        return contiguous(memory, memory.address, shape, dtype, self.device)

    def _staging(self, name: str, n_bytes: int) -> NDArray[np.uint8]:
        """Pinned memory that the next call with this name reuses."""
        if name not in self._pinned or len(self._pinned[name].array) < n_bytes:
            self._pinned.pop(name, None)
            self._pinned[name] = Pinned(self._runtime, self._index, max(1, n_bytes))
        return self._pinned[name].array[:n_bytes]

    def _entered(self, array: DeviceArray) -> DeviceArray:
        if array.device != self.device:
            raise InputError(
                f"an array on {array.device}: expected one on {self.device} or in host memory; "
                "copy it there first"
            )
        if isinstance(array.owner, Borrowed):  # the stream waits for the work on it so far
            _C.describe(array.owner.array, self._stream.handle)
        return array

    def _gathered(self, images: DeviceImages, name: str) -> DeviceArray:
        """One array of images that have their own memory each."""
        first, n_bytes = images[0], images[0].nbytes
        there = self.kept(name, (len(images), n_bytes), np.uint8)
        for image, row in zip(images.images, there, strict=True):
            low, _ = self._entered(image).extent
            with self._runtime.on(self._index):
                self._runtime.copy(row.address, low, n_bytes, self.stream)
        address = there.address + first.address - first.extent[0]
        strides = (n_bytes, *first.strides)
        return DeviceArray(there.owner, address, images.shape, strides, first.dtype, self.device)

    def _uploaded(self, array: NDArray[Any], name: str) -> DeviceArray:
        """A copy in the array's order of axes in memory, through pinned memory."""
        if not array.ndim:
            return self._uploaded(array[None], name)[0]
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        source = array.transpose(order)
        if name in self._in_flight:
            self.wait()  # its staging memory is still being read
        self._in_flight.add(name)
        staged = self._staging(name, array.nbytes).view(array.dtype).reshape(source.shape)
        there = self.kept(name, source.shape, array.dtype)
        with self._runtime.on(self._index):
            for rows in self._copied(source, staged):
                address = there.address + rows.start * there.strides[0]
                self._runtime.upload(staged[rows], address, self.stream)
        return there.transpose(*np.argsort(order).tolist())

    def _copied(self, source: NDArray[Any], staged: NDArray[Any]) -> Iterator[slice]:
        """Copies an array; gives each piece when it is there. One thread is slower than the bus."""
        if source.nbytes < LARGE:
            np.copyto(staged, source)
            yield slice(0, len(source))
            return
        if self._copiers is None:
            self._copiers = ThreadPoolExecutor(PIECES, "fastbts-copy")
        pieces = _pieces(len(source))
        copies = [self._copiers.submit(np.copyto, staged[p], source[p]) for p in pieces]
        for piece, copy in zip(pieces, copies, strict=True):
            copy.result()
            yield piece


@dataclass(eq=False)
class _Later:
    """An array that the next `get` fetches, and its value after that."""

    array: DeviceArray
    value: NDArray[Any] | None = None


def _pieces(n: int) -> list[slice]:
    bounds = [n * i // PIECES for i in range(PIECES + 1)]
    return [slice(a, b) for a, b in pairwise(bounds) if a < b]


def _n_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
