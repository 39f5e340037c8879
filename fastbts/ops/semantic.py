"""The ops inside the network, as `fastbts.ops` offers them: the semantic bridge and semantic attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbts import _C
from fastbts.errors import InputError, OptionsError
from fastbts.ops.arrays import Array, result, stream_handle


class Planes(NamedTuple):
    """A volume (B, C, D, H, W) seen along each axis: z (B, C', H, W), y (B, C', D, W), x (B, C', D, H), float32."""

    z: Array
    y: Array
    x: Array


class PlaneWeights(NamedTuple):
    """Weights of `semantic_plane` for planes of 2R channels, float32: all shapes are checked by the op.

    Attributes:
        conv: (R, 2R, 3, 3), the convolution all three views share.
        bias: (R,), of the convolution.
        view: (3, R), added to the views z, y, x.
        expand: (C, R), from what is seen to the channels of the volume.
    """

    conv: Array
    bias: Array
    view: Array
    expand: Array


class AttentionWeights(NamedTuple):
    """Weights of `semantic_attention` with J hidden channels, float32: all shapes are checked by the op.

    Attributes:
        w_x: (J, C'), applied to the encoder's features.
        bias: (J,).
        w_g: (J, C'), applied to the decoder's features.
        w_s: (J, K), applied to the similarity maps.
        w_a: (J, 2, 2, 2), from hidden channels to the mask of the eight voxels in one at half resolution.
        strength: lambda; with 0 the skip connection passes unchanged.
    """

    w_x: Array
    bias: Array
    w_g: Array
    w_s: Array
    w_a: Array
    strength: float


def semantic_project(
    tensor: Array, n_threads: int = 0, *, out: Planes | None = None, stream: Any = None
) -> Planes:
    """Projects a volume along each of its axes: mean and maximum.

    The CPU reads each channel once for all three axes; a device reads it once per axis, which its L2 serves.

    Args:
        tensor: (B, R, D, H, W) float32 without NaN.
        n_threads: 0 for all CPUs.
        out: Planes to write into; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        Planes of 2R channels, R means and then R maxima: z over D, y over H, x over W.
    """
    planes = _projections("semantic_project", tensor, out)
    _C.semantic_project(tensor, planes, n_threads, stream_handle(stream))
    return planes


def semantic_plane(
    planes: Planes,
    weights: PlaneWeights,
    n_threads: int = 0,
    *,
    out: Planes | None = None,
    stream: Any = None,
) -> Planes:
    """Looks at the planes of a volume in 2D: Q = expand leaky_relu(conv plane + bias + view), slope 0.01, zeros around.

    Args:
        planes: As `semantic_project` returns them, 2R channels, float32.
        weights: See `PlaneWeights`.
        n_threads: 0 for all CPUs.
        out: Planes to write into, no part of `planes`; needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        Planes of C channels, for `semantic_lift`.
    """
    seen = _seen("semantic_plane", planes, weights, out)
    _C.semantic_plane(planes, weights, seen, n_threads, stream_handle(stream))
    return seen


def semantic_bridge(
    reduced: Array,
    weights: PlaneWeights,
    target: Array,
    n_threads: int = 0,
    *,
    planes: Planes | None = None,
    seen: Planes | None = None,
    stream: Any = None,
) -> None:
    """The whole bridge: `semantic_project`, `semantic_plane` and `semantic_lift` added to the target, with the same threads.

    Args:
        reduced: The volume that is projected, (B, R, D, H, W) float32 without NaN.
        weights: See `PlaneWeights`.
        target: (B, C, D, H, W) float32, what the bridge adds to, in place.
        n_threads: 0 for all CPUs.
        planes: Room for the projections, as `semantic_project` returns them; needed on a device, saves time elsewhere.
        seen: Room for what `semantic_plane` makes of them; likewise.
        stream: CUDA stream, for arrays on a device.
    """
    planes = _projections("semantic_bridge", reduced, planes)
    seen = _seen("semantic_bridge", planes, weights, seen)
    _C.semantic_bridge(reduced, weights, target, planes, seen, n_threads, stream_handle(stream))


def _projections(op: str, tensor: Array, given: Planes | None) -> Planes:
    """Planes of 2R channels for a volume of R."""
    shape = np.shape(tensor)
    if len(shape) != 5:
        raise InputError(f"{op}: tensor: expected float32 (B, R, D, H, W), got shape {shape}")
    n_b, n_r, n_d, n_h, n_w = shape
    sizes = ((n_h, n_w), (n_d, n_w), (n_d, n_h))
    return _planes(f"{op}: out", given, tensor, [(n_b, 2 * n_r, *size) for size in sizes])


def _seen(op: str, planes: Planes, weights: PlaneWeights, given: Planes | None) -> Planes:
    """Planes of as many channels as the weights expand to."""
    sizes = [np.shape(plane) for plane in planes]
    if any(len(size) != 4 for size in sizes):
        raise InputError(
            f"{op}: planes: expected three times float32 (B, 2R, *, *), got shapes {sizes}"
        )
    n_c = np.shape(weights.expand)[:1]
    return _planes(f"{op}: out", given, planes.z, [(size[0], *n_c, *size[2:]) for size in sizes])


def _planes(name: str, given: Planes | None, like: Array, shapes: list[tuple[int, ...]]) -> Planes:
    """The planes to write into: see `fastbts.ops.arrays.result`."""
    return Planes(
        *(
            result(name, plane, like, shape)
            for plane, shape in zip(given or (None,) * 3, shapes, strict=True)
        )
    )


def semantic_lift(
    planes: Planes,
    target: Array | None = None,
    n_threads: int = 0,
    *,
    out: Array | None = None,
    stream: Any = None,
) -> NDArray[np.float32]:
    """Lifts three planes into a volume: F(d, h, w) = (z(h, w) + y(d, w) + x(d, h)) / 3.

    Args:
        planes: z (B, C, H, W), y (B, C, D, W) and x (B, C, D, H) float32.
        target: (B, C, D, H, W) float32 to add F to, in place.
        n_threads: 0 for all CPUs.
        out: (B, C, D, H, W) float32 to write F into instead; it or a target is needed on a device.
        stream: CUDA stream, for arrays on a device.

    Returns:
        F, (B, C, D, H, W) float32, or the target.

    Raises:
        OptionsError: Also where both target and out are given.
    """
    if target is not None and out is not None:
        raise OptionsError(
            "semantic_lift: expected a target to add to, or out to write into, got both"
        )
    given = out if target is None else target
    volume = result(
        "semantic_lift: out", given, planes.x, (*np.shape(planes.x), *np.shape(planes.z)[-1:])
    )
    _C.semantic_lift(planes, volume, target is not None, n_threads, stream_handle(stream))
    return volume


def semantic_attention(
    skip: Array,
    encoded: Array,
    decoded: Array,
    similarity: Array,
    weights: AttentionWeights,
    out: Array,
    n_threads: int = 0,
    *,
    stream: Any = None,
) -> None:
    """Weighs a skip connection voxel by voxel: out = skip (1 + strength (2m - 1)), with a mask m from the level below.

    There h = leaky_relu(w_x encoded + bias + w_g decoded + w_s up(similarity)), slope 0.01, the similarity upsampled on
    the fly, trilinearly as in `resample`; each voxel below holds 2 x 2 x 2 of the skip, with m = sigmoid(sum_j w_a[j] h_j).

    Args:
        skip: (B, C, D, H, W) float32.
        encoded: The encoder's next level, (B, C', D/2, H/2, W/2) float32.
        decoded: The decoder's features before their upsampling, same shape.
        similarity: Text maps on a grid of any size, (B, K, d, h, w) float32; K may be 0.
        weights: See `AttentionWeights`.
        out: (B, C, D, H, W) float32, written; channels of a larger buffer, or `skip` itself.
        n_threads: 0 for all CPUs.
        stream: CUDA stream, for arrays on a device.
    """
    _C.semantic_attention(
        skip, encoded, decoded, similarity, *weights, out, n_threads, stream_handle(stream)
    )
