"""The CUDA runtime, through `cuda.bindings`: streams, memory and copies. Every status is checked.

No GPU has run this yet; the tests run it over a runtime of host memory (tests/fakes).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import DeviceError

LOST = {
    "cudaErrorAssert", "cudaErrorContextIsDestroyed", "cudaErrorECCUncorrectable",
    "cudaErrorHardwareStackError", "cudaErrorIllegalAddress", "cudaErrorIllegalInstruction",
    "cudaErrorInvalidAddressSpace", "cudaErrorInvalidPc", "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout", "cudaErrorMisalignedAddress",
}  # fmt: skip
"""Errors after which every call of CUDA in the process fails."""


class Runtime:
    """The CUDA runtime of a machine with a device.

    Raises:
        DeviceError: `cuda.bindings` is not installed, or there is no CUDA device.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise DeviceError(
                "cuda.bindings is not installed; install it with: pip install cuda-bindings"
            ) from error
        self.api: Any = runtime
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or not count:
            raise DeviceError(
                f"no CUDA device here ({status.name}); check that `nvidia-smi` lists one, or use "
                "device='cpu'"
            )
        self.n_devices = int(count)

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls the function of that name; returns its value, or a tuple of several.

        Raises:
            DeviceError: It did not return cudaSuccess.
        """
        status, *values = getattr(self.api, name)(*arguments)
        if status != self.api.cudaError_t.cudaSuccess:
            way_out = "; this process has lost the device: start it again"
            raise DeviceError(f"{name}: {status.name}{way_out if status.name in LOST else ''}")
        return tuple(values) if len(values) > 1 else values[0] if values else None

    @contextmanager
    def on(self, index: int) -> Iterator[None]:
        """Makes a device the current one of this thread, and puts the former one back.

        Raises:
            DeviceError: There is no such device.
        """
        if not 0 <= index < self.n_devices:
            raise DeviceError(
                f"cuda:{index}: this machine has {self.n_devices} CUDA device(s); expected "
                f"cuda:0 to cuda:{self.n_devices - 1}"
            )
        before = self("cudaGetDevice")
        self("cudaSetDevice", index)
        try:
            yield
        finally:
            self("cudaSetDevice", before)

    def compute_capability(self) -> str:
        """Of the current device, for example "8.9"."""
        properties = self("cudaGetDeviceProperties", self("cudaGetDevice"))
        return f"{properties.major}.{properties.minor}"

    def upload(self, array: NDArray[Any], address: int, stream: Any) -> None:
        """Copies a contiguous array to the device, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, address: int, array: NDArray[Any], stream: Any) -> None:
        """Copies from the device into a contiguous array, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def copy(self, to: int, source: int, n_bytes: int, stream: Any) -> None:
        """Copies within the device, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self("cudaMemcpyAsync", to, source, n_bytes, kind, stream)


class Stream:
    """A stream of a device that does not wait for the default stream.

    It is destroyed when nothing refers to it: neither its workspace nor memory in its order.
    """

    def __init__(self, runtime: Runtime, index: int) -> None:
        self.runtime, self.index = runtime, index
        flag = runtime.api.cudaStreamNonBlocking
        with runtime.on(index):
            self.handle = int(runtime("cudaStreamCreateWithFlags", flag))
        free_with(self, runtime, index, "cudaStreamDestroy", self.handle)

    def wait(self) -> None:
        """Waits for all work on it; raises DeviceError if some of it failed."""
        with self.runtime.on(self.index):
            self.runtime("cudaStreamSynchronize", self.handle)


class Memory:
    """Memory of a device in the order of a stream, freed when nothing refers to it.

    Raises:
        DeviceError: There is too little.
    """

    def __init__(self, stream: Stream, n_bytes: int) -> None:
        self.stream, self.n_bytes = stream, max(1, n_bytes)
        runtime, index = stream.runtime, stream.index
        with runtime.on(index), _explained(runtime, index, self.n_bytes):
            self.address = int(runtime("cudaMallocAsync", self.n_bytes, stream.handle))
        # It holds the stream, which must be there still when the memory is freed.
        free_with(self, runtime, index, "cudaFreeAsync", self.address, stream)


class Pinned:
    """Page-locked host memory, which a device copies from and to while the host goes on.

    Attributes:
        array: The memory, (n_bytes,) uint8.
    """

    def __init__(self, runtime: Runtime, index: int, n_bytes: int) -> None:
        flag = runtime.api.cudaHostAllocDefault
        with runtime.on(index):
            address = int(runtime("cudaHostAlloc", n_bytes, flag))
        memory = (ctypes.c_uint8 * n_bytes).from_address(address)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
        free_with(self, runtime, index, "cudaFreeHost", address)


class Block:
    """Memory of a device for work on any of its streams, freed when nothing refers to it.

    Allocating and freeing wait for the whole device.

    Raises:
        DeviceError: There is too little.
    """

    def __init__(self, runtime: Runtime, index: int, n_bytes: int) -> None:
        self.n_bytes = max(1, n_bytes)
        with runtime.on(index), _explained(runtime, index, self.n_bytes):
            self.address = int(runtime("cudaMalloc", self.n_bytes))
        free_with(self, runtime, index, "cudaFree", self.address)


@contextmanager
def _explained(runtime: Runtime, index: int, n_bytes: int) -> Iterator[None]:
    """Says in the error of an allocation on a device what was asked for, and the way out."""
    try:
        yield
    except DeviceError as error:
        _, free, _ = runtime.api.cudaMemGetInfo()
        left = "" if free is None else f", {free / 1e6:.0f} MB are free"
        raise DeviceError(
            f"cuda:{index}: out of memory: {n_bytes / 1e6:.0f} MB more are needed{left}; drop "
            f"results that are kept there, free memory, or use another device ({error})"
        ) from error


def free_with(owner: Any, runtime: Runtime, index: int, name: str, *arguments: Any) -> None:
    """Calls a function that frees when the owner is gone; at the end of the process CUDA does."""
    finalize(owner, _free, os.getpid(), runtime, index, name, arguments).atexit = False


def _free(
    process: int, runtime: Runtime, index: int, name: str, arguments: tuple[Any, ...]
) -> None:
    if os.getpid() != process:
        return  # a forked process cannot use what its parent allocated
    plain = (a.handle if isinstance(a, Stream) else a for a in arguments)
    with suppress(DeviceError), runtime.on(index):  # a device that failed may fail to free, too
        runtime(name, *plain)
