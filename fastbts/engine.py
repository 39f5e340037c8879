"""Engines: what runs the network. One small protocol, one loader; each backend lives in `fastbts/engines/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbts.volume import MODALITIES

REGIONS = ("WT", "TC", "ET")
"""Whole tumour, tumour core, enhancing tumour: the network's outputs, each containing the next."""


@dataclass(frozen=True)
class EngineSpec:
    """What a network takes and gives; part of the engine file's manifest."""

    name: str = "engine"
    """Name for reports."""
    modalities: tuple[str, ...] = MODALITIES
    """Input channels in order."""
    regions: tuple[str, ...] = REGIONS
    """Output channels in order."""
    stride: int = 16
    """Spatial sizes must be multiples of this."""
    spacing_mm: float = 1.0
    """Isotropic spacing the network was trained at; other grids are resampled to it and mapped back."""
    window: tuple[int, int, int] = (144, 176, 144)
    """(D, H, W) the network was trained on, used for sliding windows."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Intensities are clipped at these percentiles of the brain voxels before the z-score."""
    thresholds: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Probability from which a voxel belongs to each region."""
    min_et_mm3: float = 0.0
    """Enhancing tumour smaller than this in total becomes necrotic core; chosen on validation cases."""


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
        self, tensor: NDArray[np.float32], text: NDArray[np.float32] | None = None, *, out: NDArray[np.float32] | None = None
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
