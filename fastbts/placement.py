"""Where the network's tensor is placed in the volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.interface import Array, Workspace
from fastbts.ops import Box, PackedLogits, Size

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Placement:
    """Where the network's tensor is in the volume, to map its output back.

    Attributes:
        box: The brain box in the volume's (Z, Y, X) axes, half-open.
        size: The brain box's size at the network's spacing.
        padded: (D, H, W) of the tensor, with the box in its middle.
        brain: The brain box of a case with focus, where `box` is a part of it; else None.
    """

    box: Box
    size: Size
    padded: Size
    brain: Box | None = None

    @property
    def offset(self) -> Size:
        """Where the brain box begins inside the tensor."""
        d, h, w = ((n - s) // 2 for n, s in zip(self.padded, self.size, strict=True))
        return d, h, w

    @property
    def brain_box(self) -> Box:
        """The whole brain box, also where the tensor is a part of it."""
        return self.box if self.brain is None else self.brain

    @property
    def in_volume(self) -> Slices:
        """The brain box as an index of the volume's (Z, Y, X) axes."""
        d, h, w = (slice(*side) for side in self.box)
        return d, h, w

    @property
    def in_tensor(self) -> Slices:
        """The brain box, at the network's spacing, as an index of the tensor's (D, H, W) axes."""
        d, h, w = (slice(o, o + n) for o, n in zip(self.offset, self.size, strict=True))
        return d, h, w

    @property
    def resampled(self) -> bool:
        """Whether the input's spacing differs from the network's by more than the tolerance."""
        return self.size != box_size(self.box)

    def restore(
        self, logits: Array | PackedLogits, workspace: Workspace = HOST, n_threads: int = 0
    ) -> tuple[Array | PackedLogits, Size]:
        """Maps logits (K, D, H, W) to the input's spacing; returns them and the box's offset."""
        if not self.resampled:
            return logits, self.offset
        voxels: Array = logits.voxels(n_threads) if isinstance(logits, PackedLogits) else logits
        size, cut = box_size(self.box), voxels[(slice(None), *self.in_tensor)]
        if workspace.stream is not None:  # where the op takes contiguous arrays only
            cut = workspace.sampled(cut, (1, 1, 1), "logits in the box")
        restored = workspace.kept("restored logits", (len(cut), *size), np.float32)
        ops.resample(cut, size, n_threads, out=restored, stream=workspace.stream)
        return restored, (0, 0, 0)

    def in_box(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (K, D, H, W) on the tensor's grid -> (K, *box), at the input's spacing."""
        restored: Array
        restored, offset = self.restore(logits)
        d, h, w = (slice(o, o + n) for o, n in zip(offset, box_size(self.box), strict=True))
        return restored[:, d, h, w]


def box_size(box: Box) -> Size:
    """Voxels of a box along (D, H, W)."""
    d, h, w = (stop - start for start, stop in box)
    return d, h, w
