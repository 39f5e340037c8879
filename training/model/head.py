"""Text-conditioned head: each region's classifier is drawn up from its prompt and the case. Ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model.blocks import zeroed


class TextHead(nn.Module):
    """z_k = <D_0, w_k + m_k> + b_k with m_k = MLP([GAP E4; t'_k]). Equals the plain head (w, b) when fresh.

    Where the network packs voxels, each region has p^3 such vectors, one per voxel of a block; `unpack_voxels` then gives the
    logits at full resolution.

    Args:
        n_channels: C of D_0.
        packed: p^3.
        n_bottleneck: Channels of the pooled bottleneck.
        width: E, length of a text vector.
    """

    def __init__(self, n_channels: int, packed: int, n_bottleneck: int, width: int) -> None:
        super().__init__()
        self.packed, self.n_channels = packed, n_channels
        self.mlp = nn.Sequential(
            nn.Linear(n_bottleneck + width, width), nn.LeakyReLU(0.01), zeroed(nn.Linear(width, packed * n_channels))
        )

    def forward(self, x: Tensor, plain: nn.Conv3d, pooled: Tensor, table: Tensor) -> Tensor:
        """Computes packed logits, for `unpack_last`.

        Args:
            x: D_0, (B, C, D, H, W).
            plain: The plain head, a 1^3 convolution C -> K p^3.
            pooled: GAP E4, (B, n_bottleneck).
            table: t', (B, K, E).
        Returns:
            (B, D, H, W, K p^3), channels last: so the bias joins the product.
        """
        case = pooled.unsqueeze(1).expand(-1, table.shape[1], -1)
        change = self.mlp(torch.cat([case, table], 2)).reshape(x.shape[0], -1, self.n_channels)
        weight = plain.weight.flatten(1) + change  # (B, K p^3, C)
        logits = x.flatten(2).transpose(1, 2) @ weight.transpose(1, 2) + plain.bias
        return logits.reshape(x.shape[0], *x.shape[2:], -1)
