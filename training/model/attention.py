"""Semantic attention: a gate on a skip connection, from the decoder and the similarity map.

An additive attention gate (Oktay et al. 2018, arXiv 1804.03999, section 2.2) that also reads the
similarity map. As there, the gate is computed at half the skip's resolution and upsampled. It reads
the encoder's next level instead of the skip, which is the skip after stride-2 convolutions. On a
CPU that costs a fraction of a gate at the skip's own resolution, where reading the features again
takes longer than the arithmetic. The paper (arXiv 2507.09966 v1/v2, abstract) names a semantic
attention; this form of it is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SemanticAttention(nn.Module):
    """Gate on one skip connection. Initially the identity: lambda begins at zero.

    Args:
        n_below: C' of encoder and decoder at the level below the skip.
        width: Channels inside the gate.
        n_regions: K of the similarity map; 0 without one.
        scale: Voxels of the level below per voxel of the similarity map and axis; at least 1.
    """

    def __init__(self, n_below: int, width: int, n_regions: int, scale: int) -> None:
        super().__init__()
        self.scale = float(scale)
        self.encoded, self.decoded = (
            nn.Conv3d(n_below, width, 1),
            nn.Conv3d(n_below, width, 1, bias=False),
        )
        self.map = nn.Conv3d(n_regions, width, 1, bias=False) if n_regions else None
        self.gate = nn.ConvTranspose3d(width, 1, 2, stride=2, bias=False)
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(
        self, skip: Tensor, encoded: Tensor, decoded: Tensor, similarity: Tensor | None
    ) -> Tensor:
        """Computes S (1 + lambda (2 m - 1)) with the mask m.

        m = sigmoid(w_a^T lrelu(W_x E' + W_g G + W_s up(s) + b)); w_a^T is a transposed convolution
        2^3 with stride 2.

        Args:
            skip: S, (B, C, D, H, W).
            encoded: E', the encoder's next level, (B, C', D/2, H/2, W/2).
            decoded: G, the decoder feature before its upsampling, same shape.
            similarity: s, (B, K, D/2/scale, H/2/scale, W/2/scale), upsampled trilinearly; None
                without guidance.
        Returns:
            The gated skip, (B, C, D, H, W).
        """
        hidden = self.encoded(encoded) + self.decoded(decoded)
        if self.map is not None and similarity is not None:
            if self.scale > 1:
                similarity = functional.interpolate(
                    similarity, scale_factor=self.scale, mode="trilinear"
                )
            hidden = hidden + self.map(similarity)
        mask = self.gate(functional.leaky_relu(hidden, 0.01)).sigmoid()
        return skip * (1 + self.strength * (2 * mask - 1))
