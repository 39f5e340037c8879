"""The part of the CUDA runtime that the TensorRT backend needs, through `cuda.bindings`.

Every status is checked. Only the check for a device has run so far; see `tensorrt.py`.
"""

from __future__ import annotations

from typing import Any

from fastbts.engine.backends.base import Floats
from fastbts.errors import DeviceError


class Cuda:
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

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls the function of that name and returns its value.

        Raises:
            DeviceError: It did not return cudaSuccess.
        """
        status, *values = getattr(self.api, name)(*arguments)
        if status != self.api.cudaError_t.cudaSuccess:
            raise DeviceError(f"{name}: {status.name}")
        return values[0] if values else None

    def compute_capability(self) -> str:
        """Of the current device, for example "8.9"."""
        properties = self("cudaGetDeviceProperties", self("cudaGetDevice"))
        return f"{properties.major}.{properties.minor}"

    def upload(self, array: Floats, address: int, stream: Any) -> None:
        """Copies an array to the device, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, address: int, array: Floats, stream: Any) -> None:
        """Copies from the device into an array, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)


class Buffer:
    """Device memory that grows when more is needed."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._size, self.address = cuda, 0, 0

    def fit(self, size: int) -> bool:
        """Makes room for that many bytes; returns whether the address changed."""
        if size <= self._size:
            return False
        self.free()
        self.address, self._size = int(self._cuda("cudaMalloc", size)), size
        return True

    def free(self) -> None:
        """Frees the memory."""
        if self.address:
            self._cuda("cudaFree", self.address)
        self.address, self._size = 0, 0
