"""Engines: what runs the network. One small protocol, one loader; each backend lives in `fastbts/engines/`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts.spec import EngineSpec


class Engine(Protocol):
    """A loaded network. `infer` may be called from several threads at once."""

    spec: EngineSpec

    @property
    def text(self) -> NDArray[np.float32] | None:
        """Text table baked into the network, (K, T); None where the network reads no text."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """Backend, device, precision, versions: for the report."""
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
            tensor: Normalised images, (B, M, D, H, W); D, H, W multiples of `spec.stride`.
            text: Embeddings of length 1 in place of the baked table, in the shape of `self.text`.
            out: Where the logits go, (B, K, D, H, W) float32, contiguous; None for a new array.
        Returns:
            The logits, (B, K, D, H, W): `out`, if it was given.
        Raises:
            OptionsError: An argument of the wrong shape or kind.
            DeviceError: The device or its runtime failed, for example for want of memory; or the engine is closed.
        """
        ...

    def close(self) -> None:
        """Frees the network; the engine cannot be used afterwards."""
        ...
