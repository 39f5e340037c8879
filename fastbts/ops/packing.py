"""The packed layout of a network's ends on the CPU: blocks of voxels as channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts import _C
from fastbts.ops.arrays import Array

__all__ = ["PackedLogits", "Packing"]


@dataclass(frozen=True, eq=False)
class Packing:
    """What a network reads instead of voxels, and what it gives.

    Attributes:
        patch: p, 1 or 2: blocks of p^3 voxels become channels.
        dtype: Of the tensor: float32, uint16 with the bits of bfloat16, or int8.
        logits_dtype: Of the logits, float32 or uint16.
        step: What 1 stands for in int8.
        fusion: gate (M, M), gate_bias (M,) and background (M,) of the pixel fusion, float32; see
            csrc/ops/pack.h. Empty for no fusion.
    """

    patch: int
    dtype: DTypeLike = np.float32
    logits_dtype: DTypeLike = np.float32
    step: float = 1.0
    fusion: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def shape(self, n_images: int, size: tuple[int, ...]) -> tuple[int, ...]:
        """(M p^3, D/p, H/p, W/p) of M images of this size (D, H, W)."""
        return (n_images * self.patch**3, *(n // self.patch for n in size))

    def size(self, packed: tuple[int, ...]) -> tuple[int, ...]:
        """(D, H, W) of a packed shape."""
        return tuple(n * self.patch for n in packed[-3:])


@dataclass(frozen=True, eq=False)
class PackedLogits:
    """Logits as the network gave them.

    Attributes:
        array: (K p^3, D/p, H/p, W/p), float32 or uint16 with the bits of bfloat16.
        patch: p.
    """

    array: NDArray[Any]
    patch: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, D, H, W)."""
        n, *size = self.array.shape
        return (n // self.patch**3, *(self.patch * side for side in size))

    def voxels(
        self, n_threads: int = 0, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The logits (K, D, H, W), in `out` if it is given."""
        voxels = np.empty(self.shape, np.float32) if out is None else out
        _C.unpack(np.moveaxis(self.array, 0, -1)[None], self.patch, voxels[None], n_threads, 0)
        return voxels


def layout(logits: Array | PackedLogits) -> tuple[Array, int]:
    """The array of logits, and its patch."""
    return (logits.array, logits.patch) if isinstance(logits, PackedLogits) else (logits, 1)
