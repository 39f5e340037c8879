"""What an engine is: the protocol between the pipeline and the backends."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import PackedLogits, Packing
from fastbts.spec import EngineSpec


class Engine(Protocol):
    """A loaded network. `infer` may be called from several threads at once."""

    spec: EngineSpec

    @property
    def text(self) -> NDArray[np.float32] | None:
        """Text table in the network, (K, T); None where the network reads no text."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """For the report: backend, device, precision, versions."""
        ...

    def infer(
        self,
        tensor: NDArray[np.float32],
        text: NDArray[np.float32] | None = None,
        *,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Runs the network.

        Args:
            tensor: Normalised images, (B, M, D, H, W); a size that `spec.takes`.
            text: Unit-length embeddings that replace `self.text`, in its shape.
            out: Array for the logits, (B, K, D, H, W) float32, contiguous; None for a new one.

        Returns:
            The logits, (B, K, D, H, W): `out` if it was given.

        Raises:
            OptionsError: An argument has the wrong shape or type.
            DeviceError: The device or its runtime failed, for example without enough memory, or
                the engine is closed.
        """
        ...

    def close(self) -> None:
        """Frees the network; `infer` then raises DeviceError. Running calls still finish."""
        ...


class PackedEngine(Engine, Protocol):
    """An engine that can take a packed tensor, so that nobody has to pack it."""

    @property
    def packing(self) -> Packing | None:
        """How it wants it; None if it takes voxels only."""
        ...

    def infer_packed(self, tensor: NDArray[Any]) -> PackedLogits:
        """Runs the network over one case.

        Args:
            tensor: (M p^3, D/p, H/p, W/p), contiguous, as `packing` says; a size that `spec.takes`.
        Raises:
            OptionsError, DeviceError: See `Engine.infer`.
        """
        ...


class DeviceEngine(Engine, Protocol):
    """An engine that also takes arrays on its device.

    Attributes:
        device: Where they must be, "cpu" or "cuda:N".
        batch: Number of windows that it takes at once most efficiently.
    """

    device: str
    batch: int

    def infer(
        self,
        tensor: Any,
        text: NDArray[np.float32] | None = None,
        *,
        out: Any = None,
        stream: int | None = None,
    ) -> Any:
        """Runs the network; see `Engine.infer`.

        Args:
            tensor: NumPy array, or `DeviceArray` on `device`.
            text: As in `Engine.infer`.
            out: As tensor; needed on a device.
            stream: Handle of the CUDA stream on which the call is queued for device arrays: it then
                returns without waiting.
        """
        ...


def device_of(engine: Engine) -> str:
    """Device whose arrays an engine takes; "cpu" unless its `device` is the text "cuda:N"."""
    device = getattr(engine, "device", None)
    is_cuda = isinstance(device, str) and re.fullmatch("cuda:[0-9]+", device)
    return str(device) if is_cuda else "cpu"


def batch_of(engine: Engine) -> int:
    """Number of windows that an engine takes at once; 1 for one that does not say."""
    return getattr(engine, "batch", 1)


def packing_of(engine: Engine) -> Packing | None:
    """How an engine wants a packed tensor; None if it takes voxels only."""
    return getattr(engine, "packing", None)


def parallel_of(engine: Engine) -> int:
    """Number of calls that an engine runs at once, each with its own memory; 1 by default."""
    return getattr(engine, "parallel", 1)
