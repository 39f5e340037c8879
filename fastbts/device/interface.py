"""What a workspace is: all that a prediction asks of the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = Any
"""A NumPy array on the CPU, a `DeviceArray` on a CUDA device."""


class Workspace(Protocol):
    """What one prediction at a time needs on a device: its stream, and memory that is reused.

    Attributes:
        device: "cpu" or "cuda:N".
        stream: Handle of its CUDA stream; None on the CPU.
    """

    device: str
    stream: int | None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """New memory, in row-major order, that the array owns."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """The same with zeros."""
        ...

    def kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Memory that the next call with this name reuses; its address is the same while it fits.

        Its contents are undefined. On the CPU small memory is new.
        """
        ...

    def scratch(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array | None:
        """Memory as of `kept` for what only a device needs; None on the CPU."""
        ...

    def put(self, array: Array, name: str) -> Array:
        """An array here: itself if it is here, else a copy in memory that `name` keeps.

        A copy has the element type and the axes of the array, and its memory order.
        """
        ...

    def sampled(self, view: Array, steps: Sequence[int], name: str) -> Array:
        """Every few voxels along D, H and W of images (M, D, H, W), as contiguous float32.

        On a device it is in memory that `name` keeps.
        """
        ...

    def copy(self, source: Array, to: Array) -> None:
        """Copies a contiguous array into one of the same shape and type."""
        ...

    def clear(self, array: Array) -> None:
        """Makes the elements of a contiguous array 0."""
        ...

    def own(self, array: Array) -> Array:
        """An array that stays as it is when kept memory is reused: a copy if it is in that."""
        ...

    def get(self, *arrays: Array) -> list[NDArray[Any]]:
        """The arrays in host memory, after one wait for all work so far."""
        ...

    def get_later(self, array: Array) -> Callable[[], NDArray[Any]]:
        """Fetches an array with the next `get`; the function returned gives it after that."""
        ...

    def wait(self) -> None:
        """Waits for all work so far; raises DeviceError if some of it failed."""
        ...

    def free_bytes(self) -> int | None:
        """Memory here that is still free; None where the system does not say."""
        ...

    def reset(self) -> None:
        """Waits after a call that failed, and forgets what it left to fetch.

        Raises:
            DeviceError: The device failed; the workspace cannot be used again.
        """
        ...

    def close(self) -> None:
        """Frees the kept memory; arrays that own their memory are not touched."""
        ...


def row_major(shape: tuple[int, ...], dtype: DTypeLike) -> tuple[int, ...]:
    """Strides of a contiguous array, in bytes."""
    strides, step = [], np.dtype(dtype).itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(1, n)
    return tuple(reversed(strides))
