"""Text-conditioned head: its weights are computed from each region's prompt and the case (ours)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model.blocks import zeroed


class CaseConv(nn.Module):
    """A 1^3 convolution with weights of its own for each case."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Features (B, C, D, H, W), weights (B, J, C) and bias (J,) -> (B, J, D, H, W)."""
        mixed = weight @ x.flatten(2) + bias.unsqueeze(1)
        return mixed.reshape(x.shape[0], -1, *x.shape[2:])


class TextHead(nn.Module):
    """z_k = <D_0, w_k + m_k> + b_k with m_k = MLP([GAP E4; t'_k]). Initially the plain head (w, b).

    Where the network packs voxels, each region has p^3 such vectors, one per voxel of a block, and
    `unpack_voxels` gives the logits at full resolution.

    Args:
        n_channels: C of D_0.
        packed: p^3.
        n_bottleneck: Channels of the pooled bottleneck.
        width: E, length of a text vector.
    """

    def __init__(self, n_channels: int, packed: int, n_bottleneck: int, width: int) -> None:
        super().__init__()
        self.packed, self.n_channels, self.classify = packed, n_channels, CaseConv()
        self.mlp = nn.Sequential(
            nn.Linear(n_bottleneck + width, width),
            nn.LeakyReLU(0.01),
            zeroed(nn.Linear(width, packed * n_channels)),
        )

    def forward(self, x: Tensor, plain: nn.Conv3d, pooled: Tensor, table: Tensor) -> Tensor:
        """Computes packed logits, for `unpack_voxels`.

        Args:
            x: D_0, (B, C, D, H, W).
            plain: The plain head, a 1^3 convolution C -> K p^3.
            pooled: GAP E4, (B, n_bottleneck).
            table: t', (B, K, E).
        Returns:
            (B, K p^3, D, H, W).
        """
        case = pooled.unsqueeze(1).expand(-1, table.shape[1], -1)
        change = self.mlp(torch.cat([case, table], 2)).reshape(x.shape[0], -1, self.n_channels)
        logits: Tensor = self.classify(x, plain.weight.flatten(1) + change, plain.bias)
        return logits
