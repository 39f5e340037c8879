"""Focus: the finder says at half of the resolution where the tumour is, the network runs there.

The part of the tensor that the network gets is a tensor of its own, with a placement of its own:
what follows does not know of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.interface import Array, Workspace
from fastbts.engine.finder import FACTOR
from fastbts.engine.interface import Engine
from fastbts.ops import Box, Size
from fastbts.pipeline.label import least_logits
from fastbts.pipeline.normalize import padded_side, padded_size
from fastbts.placement import Placement, box_size
from fastbts.spec import EngineSpec
from fastbts.volume import Geometry, Volume, to_network_axes

MARGIN = 16
"""Voxels around what the finder found, which the network sees too: as many as a stride."""
NEAR = 2
"""A tumour that is so many voxels from a face of the part may go on behind it."""
MAX_SHARE = 0.7
"""Of the tensor's voxels: a larger part saves less than finding it takes."""

ON_DEVICE = "the network does not run on the CPU"
RESAMPLED = "the images are resampled to the engine's spacing"
NOTHING = "the finder found nothing"
CUT_OFF = "the tumour reaches a face of the part"


@dataclass(frozen=True)
class Part:
    """A part of the network's tensor.

    Attributes:
        begin: Its first voxel in the tensor, (D, H, W), even.
        size: Its voxels along each axis, multiples of the stride.
        box: What of it is in the brain box, in the tensor's axes; in its middle.
    """

    begin: Size
    size: Size
    box: Box

    def cut(self, tensor: Array, workspace: Workspace = HOST, n_threads: int = 0) -> Array:
        """The part of a tensor (M, D, H, W), in memory that the workspace may keep."""
        out = workspace.kept("part", (1, len(tensor), *self.size), np.float32)
        origin = np.array([self.begin], np.int32)
        return ops.window(tensor, origin, self.size, n_threads, out=out)[0]

    def placed(self, whole: Placement) -> Placement:
        """Where the part is in the volume; the tensor is at `whole` and not resampled."""
        d, h, w = (
            (side[0] + first - offset, side[0] + last - offset)
            for side, (first, last), offset in zip(whole.box, self.box, whole.offset, strict=True)
        )
        return Placement((d, h, w), box_size(self.box), self.size, brain=whole.box)


@dataclass(frozen=True)
class Focus:
    """Where the network runs on a case.

    Attributes:
        whole: Placement of the whole tensor.
        part: What the finder found; None if it did not look, or found nothing.
        reason: Why the whole brain is done; empty if the part is.
    """

    whole: Placement
    part: Part | None = None
    reason: str = ""

    @property
    def used(self) -> Part | None:
        """The part that the network gets; None for the whole tensor."""
        return None if self.reason else self.part

    @property
    def placement(self) -> Placement:
        """Of the tensor that the network gets."""
        return self.whole if self.used is None else self.used.placed(self.whole)

    @property
    def record(self) -> dict[str, Any]:
        """For the report: begin, size and share of the part in the tensor, its box in the volume;
        and why the whole brain was done."""
        about: dict[str, Any] = {"whole_brain": self.reason} if self.reason else {}
        if self.part is None:
            return about
        box = self.part.placed(self.whole).box
        return {
            "begin_zyx": list(self.part.begin),
            "size_zyx": list(self.part.size),
            "box_zyx": [list(side) for side in box],
            "share": round(_share(self.part, self.whole), 4),
            **about,
        }

    def tensor(self, whole: Array, workspace: Workspace = HOST, n_threads: int = 0) -> Array:
        """What the network gets of the whole tensor (M, D, H, W)."""
        return whole if self.used is None else self.used.cut(whole, workspace, n_threads)

    def checked(self, labels: NDArray[np.uint8], geometry: Geometry) -> Focus:
        """The same; or the whole brain if the labels (i, j, k) of the part reach its faces."""
        is_cut = is_cut_off(to_network_axes(labels, geometry), self.placement)
        return replace(self, reason=CUT_OFF) if is_cut else self


def begun(finder: Engine | None, volume: Volume, spec: EngineSpec, whole: Placement) -> Focus:
    """Whether the finder can look at a case: if not, there is a reason for the whole brain."""
    if finder is None:
        return Focus(whole, reason=ON_DEVICE)
    if whole.resampled:
        return Focus(whole, reason=RESAMPLED)
    missing = set(spec.modalities) - {*volume.modalities, *finder.spec.optional_modalities}
    if missing:
        names = ", ".join(m for m in spec.modalities if m in missing)
        return Focus(whole, reason=f"the finder was not trained without {names}")
    return Focus(whole)


def found(
    finder: Engine,
    tensor: Array,
    whole: Placement,
    stride: int,
    workspace: Workspace = HOST,
    n_threads: int = 0,
) -> Focus:
    """Lets the finder look for the tumour.

    Args:
        finder: It takes the tensor at half of the resolution.
        tensor: (M, D, H, W), normalised; its sizes are even.
        whole: Where that is in the volume, not resampled.
        stride: Of the network that gets the part.
        workspace: Of the CPU.
        n_threads: CPU threads; 0 for all.
    Raises:
        DeviceError: See `Engine.infer`.
    """
    box = found_box(finder, tensor, workspace, n_threads)
    if box is None:
        return Focus(whole, reason=NOTHING)
    part = part_around(box, whole, stride)
    share = _share(part, whole)
    reason = f"the part is {share:.0%} of the tensor" if share > MAX_SHARE else ""
    return Focus(whole, part, reason)


def found_box(
    finder: Engine, tensor: Array, workspace: Workspace = HOST, n_threads: int = 0
) -> Box | None:
    """Box of all that the finder finds, in the voxels of the tensor (M, D, H, W); None for nothing.

    Small parts that may be wrong count too: what is not in the box is lost.
    """
    spec, half = finder.spec, _three([n // FACTOR for n in tensor.shape[1:]])
    halved = workspace.kept("halved", (len(tensor), *half), np.float32)
    ops.resample(tensor, half, n_threads, out=halved)
    size, (d, h, w) = padded_size(half, spec.stride), half
    given = workspace.kept("halved and padded", (1, len(tensor), *size), np.float32)
    ops.window(halved, np.zeros((1, 3), np.int32), size, n_threads, out=given)
    logits = finder.infer(given)[0, 0, :d, :h, :w]
    mask = logits >= least_logits(spec)[0]
    if not mask.any():
        return None
    z, y, x = (_extent(indices) for indices in np.nonzero(mask))
    return z, y, x


def part_around(box: Box, whole: Placement, stride: int) -> Part:
    """The part of the tensor with a box of the tensor, as far as it is brain, and the margin."""
    sides = [
        _side(side, offset, size, padded, stride)
        for side, offset, size, padded in zip(
            box, whole.offset, whole.size, whole.padded, strict=True
        )
    ]
    begin, size, inside = zip(*sides, strict=True)
    return Part(_three(begin), _three(size), (inside[0], inside[1], inside[2]))


def is_cut_off(view: NDArray[np.uint8], placement: Placement) -> bool:
    """Whether labels (Z, Y, X) are near a face of the part behind which there is brain."""
    inside = view[placement.in_volume]
    for axis, (side, brain) in enumerate(zip(placement.box, placement.brain_box, strict=True)):
        planes = np.moveaxis(inside, axis, 0)
        if side[0] > brain[0] and planes[:NEAR].any():
            return True
        if side[1] < brain[1] and planes[-NEAR:].any():
            return True
    return False


def _side(
    found: tuple[int, int], offset: int, size: int, padded: int, stride: int
) -> tuple[int, int, tuple[int, int]]:
    """Along one axis of the tensor: begin and size of the part, and what of it is brain.

    The smallest size, then the begin that has what was found nearest to the middle. A placement
    has its box in the middle: a part that is not inside the brain loses a plane on both sides.
    """
    end = offset + size
    first, last = (min(max(n, offset), end) for n in (found[0] - MARGIN, found[1] + MARGIN))
    for n in range(padded_side(last - first, stride), size, stride):
        begins = range(0, padded - n + 1, FACTOR)
        for begin in sorted(begins, key=lambda begin: abs(2 * begin + n - first - last)):
            lost = int(begin < offset or begin + n > end)
            inside = begin + lost, begin + n - lost
            if offset <= inside[0] <= first and last <= inside[1] <= end:
                return begin, n, inside
    return 0, padded, (offset, end)


def _extent(indices: NDArray[np.intp]) -> tuple[int, int]:
    """From the first to the last of the finder's voxels along an axis, in voxels of the tensor."""
    return FACTOR * int(indices.min()), FACTOR * (int(indices.max()) + 1)


def _share(part: Part, whole: Placement) -> float:
    return math.prod(part.size) / math.prod(whole.padded)


def _three(values: Sequence[int]) -> Size:
    return values[0], values[1], values[2]
