"""A tiny semantic network, and the modules of each mechanism."""

from __future__ import annotations

from dataclasses import replace

import torch

from training.model import SemanticConfig, UNet3d, UNetConfig
from training.model.attention import SemanticAttention
from training.model.bridge import SemanticBridge
from training.model.fusion import PixelFusion
from training.model.guidance import Guidance, TextTable
from training.model.head import TextHead

MECHANISMS = {
    "fusion": {PixelFusion},
    "bridge": {SemanticBridge},
    "guidance": {Guidance, TextTable},
    "attention": {SemanticAttention},
    "head": {TextHead, TextTable},
}
TINY = UNetConfig(
    widths=(4, 8, 8, 8),
    semantic=SemanticConfig(text_width=16, width=8, bridge_width=4, gate_width=4, teacher_width=5),
)


def tiny(*on: str, patch: int = 2) -> UNet3d:
    torch.manual_seed(0)
    return UNet3d(
        replace(TINY, patch=patch, semantic=replace(TINY.semantic, **dict.fromkeys(on, True)))
    )


def randomize_zeros(network: UNet3d) -> UNet3d:
    """Gives random weights to the layers that begin at zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return network


def rounded(network: UNet3d) -> UNet3d:
    """Rounds the weights to float16, as engine files store them."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    return network
