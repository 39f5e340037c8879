"""The workspace of the CPU: NumPy arrays, no stream, no waits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts.device.host_memory import free_bytes

LARGE = 1 << 20  # bytes


class Host:
    """Implements `Workspace` for NumPy arrays; one serves all predictions at once."""

    device = "cpu"
    stream: int | None = None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Workspace.empty`."""
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Workspace.zeros`."""
        return np.zeros(shape, dtype)

    def kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Workspace.kept`."""
        return np.empty(shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """See `Workspace.scratch`."""

    def put(self, array: NDArray[Any], name: str) -> NDArray[Any]:
        """See `Workspace.put`."""
        return array

    def sampled(self, view: NDArray[Any], steps: Sequence[int], name: str) -> NDArray[np.float32]:
        """See `Workspace.sampled`."""
        every = tuple(slice(None, None, step) for step in steps)
        with np.errstate(all="ignore"):  # absurd intensities become infinite
            return np.ascontiguousarray(view[(slice(None), *every)], np.float32)

    def copy(self, source: NDArray[Any], to: NDArray[Any]) -> None:
        """See `Workspace.copy`."""
        to[...] = source

    def clear(self, array: NDArray[Any]) -> None:
        """See `Workspace.clear`."""
        array[...] = 0

    def own(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Workspace.own`."""
        return array

    def get(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """See `Workspace.get`."""
        return list(arrays)

    def get_later(self, array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """See `Workspace.get_later`."""
        return lambda: array

    def wait(self) -> None:
        """See `Workspace.wait`."""

    def free_bytes(self) -> int | None:
        """See `Workspace.free_bytes`."""
        return free_bytes()

    def reset(self) -> None:
        """See `Workspace.reset`."""

    def close(self) -> None:
        """See `Workspace.close`."""


class LentHost(Host):
    """The same for one prediction at a time, which keeps large memory for the next one.

    The system clears new pages, which takes longer than `normalize` takes to fill them.
    """

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Workspace.kept`; results may hold small arrays, which are new."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if n_bytes < LARGE:
            return super().kept(name, shape, dtype)
        if name not in self._kept or self._kept[name].size < n_bytes:
            self._kept.pop(name, None)  # first, so that there never are both
            self._kept[name] = np.empty(n_bytes, np.uint8)
        return self._kept[name][:n_bytes].view(dtype).reshape(shape)

    def own(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Workspace.own`; an engine may return a part of its input."""
        is_kept = any(np.may_share_memory(array, kept) for kept in self._kept.values())
        return array.copy() if is_kept else array

    def close(self) -> None:
        """See `Workspace.close`."""
        self._kept.clear()


HOST = Host()
"""The one that functions take by default."""
