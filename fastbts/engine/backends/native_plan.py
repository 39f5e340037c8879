"""What the native engine computes: layers and weights of a network, without files and devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts.ops import AttentionWeights, BridgeWeights

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """A linear layer: weight (J, I), bias (J,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Unit:
    """Convolution (N, C, 3, 3, 3), norm, FiLM or none (2C rows), leaky ReLU."""

    conv: Floats
    stride: int
    weight: Floats
    bias: Floats
    film: Linear | None
    is_fixed: bool = False
    """Whether the norm is a batch norm, all of which is in weight and bias."""


@dataclass(frozen=True)
class Level:
    """Two units; in the decoder the upsampling before them, and the gate on the skip."""

    units: tuple[Unit, Unit]
    up: Linear | None = None
    """weight (C, N, 2, 2, 2)."""
    gate: AttentionWeights | None = None


@dataclass(frozen=True)
class Bridge:
    """The semantic bridge; `reduce` has weight (R, C)."""

    reduce: Linear
    weights: BridgeWeights


@dataclass(frozen=True)
class Guidance:
    """Text and image guide each other; see training/model/guidance.py."""

    table: Linear
    image: Linear
    """Of the similarity map, (E, C)."""
    text: Linear
    scale: float
    bias: Floats
    text_asks: Linear
    image_key: Linear
    image_value: Linear
    to_text: Linear
    image_asks: Linear
    text_key: Linear
    text_value: Linear
    to_image: Linear
    trunk: Linear
    """Of FiLM, (E, C + K E)."""


@dataclass(frozen=True)
class Fusion:
    """See `fastbts.ops.network.pack`."""

    gate: Linear
    background: Floats


@dataclass(frozen=True)
class Packing:
    """How a network packs voxels into channels.

    Attributes:
        patch: p, voxels of a block along each axis.
        fusion: Of the packed voxels, if there is one.
        entry: Tensor that the first convolution reads, (B, M p^3, D/p, H/p, W/p).
        logits: Tensor of the packed logits, (B, K p^3, D/p, H/p, W/p).
    """

    patch: int
    fusion: Fusion | None
    entry: str
    logits: str


@dataclass
class Plan:
    """A network. Channels of the head: weight (K p^3, C)."""

    patch: int
    encoder: list[Level]
    decoder: list[Level]
    """Coarsest first."""
    head: Linear
    fusion: Fusion | None = None
    bridge: tuple[int, Bridge] | None = None
    """With its level."""
    guidance: Guidance | None = None
    head_mlp: tuple[Linear, Linear] | None = None
    """Of the text-conditioned head."""
