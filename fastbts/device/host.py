"""The workspace of the CPU: NumPy arrays, no stream, no waits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


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

    def put(self, array: NDArray[Any], name: str) -> NDArray[Any]:
        """See `Workspace.put`."""
        return array

    def own(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Workspace.own`."""
        return array

    def get(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """See `Workspace.get`."""
        return list(arrays)

    def wait(self) -> None:
        """See `Workspace.wait`."""
