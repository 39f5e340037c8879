"""The machine of the fake CUDA runtime: devices, memory, streams, captures, and what tests ask."""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import RLock, get_ident, local
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.fakes.cuda_types import Capture, Status

Work = Callable[[], None]
N_FREED = 1 << 24  # bytes of freed memory whose addresses are not used again
ANY_DEVICE = ("cudaGetDevice", "cudaSetDevice", "cudaGetDeviceCount", "cudaGetDeviceProperties")


class CudaError(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Copy(NamedTuple):
    kind: str
    """"HostToDevice", "DeviceToHost" or "DeviceToDevice"."""
    n_bytes: int
    pinned: bool
    """Whether the host's side is pinned memory."""


@dataclass(eq=False)
class Block:
    """Memory of a device, or pinned memory of the host (device None)."""

    device: int | None
    n_bytes: int
    memory: NDArray[np.uint8]

    @property
    def address(self) -> int:
        return self.memory.ctypes.data


@dataclass(eq=False)
class Stream:
    device: int
    blocking: bool = True  # whether the legacy default stream waits for it
    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    invalid: bool = False
    thread: int = 0
    mode: Capture = Capture.cudaStreamCaptureModeGlobal


@dataclass(eq=False)
class Mark:
    """A place in the work of a stream, which one record of an event makes."""

    stream: Stream | None  # that has still to reach it
    time_s: float = 0.0


@dataclass(eq=False)
class Event:
    device: int
    mark: Mark = field(default_factory=lambda: Mark(None))


@dataclass(eq=False)
class Graph:
    device: int
    works: list[Work]


@dataclass(eq=False)
class GraphExec(Graph):
    pass


class Machine:
    """A machine with CUDA devices.

    Args:
        n_devices: How many.
        n_bytes: Memory of each.
        deferred: Work runs when something waits for it, not at once: what is not waited for is
            then seen to be missing. Not for kernels of the emulated `_C`, which run at once.
    Attributes:
        calls: How often each function was called.
        copies: What was copied, in order; copies in a graph count when it is launched.
        wrong_device: What was used while its device was not the current one.
    """

    def __init__(self, n_devices: int = 1, n_bytes: int = 8 << 30, deferred: bool = False) -> None:
        self.n_devices, self.n_bytes, self.deferred = n_devices, n_bytes, deferred
        self.compute_capability = (8, 9)
        self.calls: Counter[str] = Counter()
        self.copies: list[Copy] = []
        self.wrong_device: list[str] = []
        self._failures: list[tuple[str, int, Status]] = []  # name, after how many calls, status
        self._dead: dict[int, Status] = {}  # devices whose context a fault has ended
        self._peak: Counter[int] = Counter()
        self._blocks: list[Block] = []
        self._freed: list[Block] = []  # the last ones, so that their addresses are not used soon
        self._objects: dict[int, Any] = {}  # streams, events, graphs, by their handles
        self._default = [Stream(device) for device in range(n_devices)]
        self._numbers, self._lock, self._thread = itertools.count(1000), RLock(), local()

    # What tests ask.

    def fail(
        self, name: str, status: Status = Status.cudaErrorMemoryAllocation, after: int = 0
    ) -> None:
        """Lets a later call of a function fail: the next one, or the one after so many others."""
        self._failures.append((name, self.calls[name] + after + 1, status))

    def used(self, device: int | None) -> int:
        """Bytes allocated now on a device; of pinned memory for None."""
        return sum(block.n_bytes for block in self._blocks if block.device == device)

    def peak(self, device: int) -> int:
        """Most bytes that were allocated at once on a device."""
        return self._peak[device]

    def alive(self) -> dict[str, int]:
        """What was made and is not yet freed."""
        objects = Counter(type(each).__name__ for each in self._objects.values())
        return dict(objects + Counter({"Block": len(self._blocks)}))

    def copied(self, kind: str) -> list[int]:
        """Bytes of each copy of a kind."""
        return [copy.n_bytes for copy in self.copies if copy.kind == kind]

    # What other fakes ask.

    @property
    def device(self) -> int:
        """Current device of this thread."""
        return getattr(self._thread, "device", 0)

    def enqueue(self, stream: Any, work: Work, *addresses: int) -> None:
        """Lets a stream run work that touches those addresses: at once, later, or in a graph."""
        with self._lock:
            to = self._stream(stream)
            self._check_device(to.device, "a stream")
            for address in addresses:
                self.check_address(address)
            if to.invalid:
                raise CudaError(Status.cudaErrorStreamCaptureInvalidated)
            if to.captured is not None:
                to.captured.append(work)
                return
            to.queue.append(work)
            if not self.deferred:
                self._run(to)

    def view(
        self, address: int, shape: tuple[int, ...], dtype: DTypeLike, device: int
    ) -> NDArray[Any]:
        """Memory of a device as an array.

        Raises:
            CudaError: It is not all allocated there. Raised by work of a stream it ends the
                device's context, as an illegal address does.
        """
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._check_room(address, n_bytes, device)
        return bytes_at(address, n_bytes).view(dtype).reshape(shape)

    def host_view(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Memory of the host as an array."""
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return bytes_at(address, n_bytes).view(dtype).reshape(shape)

    def check_address(self, address: int) -> None:
        """Raises CudaError if device memory is not of the current device."""
        block = self._block(address)
        if block is None:
            raise CudaError(Status.cudaErrorInvalidValue)
        if block.device is not None:
            self._check_device(block.device, "memory")

    def allocate(self, n_bytes: int) -> int:
        """Memory of the current device that is not asked for through the runtime."""
        with self._lock:
            return self._allocate(n_bytes, self.device)

    def release(self, address: int) -> None:
        with self._lock:
            self._free(address, on_device=True)

    def is_capturing(self, stream: Any) -> bool:
        return self._stream(stream).captured is not None

    def invalidate(self, stream: Any) -> None:
        """What an illegal call does to the capture of a stream."""
        captured = self._stream(stream)
        captured.invalid = captured.captured is not None

    # How it works.

    def _check_failures(self, name: str) -> None:
        for failure in self._failures:
            if failure[:2] == (name, self.calls[name]):
                self._failures.remove(failure)
                raise CudaError(failure[2])
        if name not in ANY_DEVICE and self.device in self._dead:
            raise CudaError(self._dead[self.device])

    def _run(self, stream: Stream) -> None:
        while stream.queue:
            work = stream.queue.pop(0)
            try:
                work()
            except CudaError as error:
                self._dead[stream.device] = error.status
                stream.queue.clear()
                raise

    def _run_device(self, device: int, *, non_blocking: bool = True) -> None:
        for stream in [*self._default, *self._all(Stream)]:
            if stream.device == device and (non_blocking or stream.blocking):
                self._run(stream)

    def _reach(self, mark: Mark) -> None:
        while mark.stream is not None and mark.stream.queue:
            mark.stream.queue.pop(0)()

    def _allocate(self, size: int, device: int | None) -> int:
        if device is not None and self.used(device) + size > self.n_bytes:
            raise CudaError(Status.cudaErrorMemoryAllocation)
        room = np.full(size + 256, 0xFF, np.uint8)  # NaN for floats: fresh memory has any value
        begin = -room.ctypes.data % 256
        block = Block(device, size, room[begin : begin + size])
        self._blocks.append(block)
        if device is not None:
            self._peak[device] = max(self._peak[device], self.used(device))
        return block.address

    def _free(self, address: int, *, on_device: bool) -> None:
        if not address:
            return
        block = self._block(address)
        if block is None or block.address != int(address) or (block.device is None) == on_device:
            raise CudaError(Status.cudaErrorInvalidValue)
        self._blocks.remove(block)
        self._freed.append(block)
        while sum(each.n_bytes for each in self._freed) > N_FREED:
            del self._freed[0]

    def _block(self, address: int) -> Block | None:
        for block in self._blocks:
            if block.address <= int(address) < block.address + max(block.n_bytes, 1):
                return block
        return None

    def _check_room(self, address: int, n_bytes: int, device: int) -> None:
        block = self._block(address)
        if block is None or block.device != device:
            raise CudaError(Status.cudaErrorIllegalAddress)
        if int(address) + n_bytes > block.address + block.n_bytes:
            raise CudaError(Status.cudaErrorIllegalAddress)

    def _check_device(self, device: int, what: str) -> None:
        if device != self.device:
            self.wrong_device.append(f"{what} of device {device} on device {self.device}")
            raise CudaError(Status.cudaErrorInvalidResourceHandle)

    def _unsafe_in_capture(self) -> None:
        """For calls that no thread may make while it captures, whatever the stream."""
        for stream in self._all(Stream):
            here = stream.thread == get_ident()
            safe = stream.mode == Capture.cudaStreamCaptureModeRelaxed or not (
                here or stream.mode == Capture.cudaStreamCaptureModeGlobal
            )
            if stream.captured is not None and not safe:
                stream.invalid = True
                raise CudaError(Status.cudaErrorStreamCaptureUnsupported)

    def _illegal_in_capture(self, stream: Any) -> None:
        state = self._stream(stream)
        if state.captured is not None:
            state.invalid = True
            raise CudaError(Status.cudaErrorStreamCaptureUnsupported)

    def _stream(self, handle: Any) -> Stream:
        number = 0 if handle is None else int(handle)
        return self._get(number, Stream) if number else self._default[self.device]

    def _add(self, made: Any) -> int:
        number = next(self._numbers)
        self._objects[number] = made
        return number

    def _get(self, handle: Any, kind: type[Any]) -> Any:
        found = self._objects.get(int(handle))
        if not isinstance(found, kind):
            raise CudaError(Status.cudaErrorInvalidResourceHandle)
        return found

    def _remove(self, handle: Any, kind: type[Any]) -> None:
        self._get(handle, kind)
        del self._objects[int(handle)]

    def _all(self, kind: type[Any]) -> Iterator[Any]:
        return (each for each in list(self._objects.values()) if isinstance(each, kind))


def bytes_at(address: int, n_bytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(int(address)))
