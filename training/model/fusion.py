"""Pixel level: which voxels are brain, which modalities are present, and the weight of each.

Ours; the paper's abstract (arXiv 2507.09966 v1/v2) names only a pixel level. Works on the packed
input, and costs one pass over it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model.blocks import zeroed


class PixelFusion(nn.Module):
    """Brain mask, modality weights and, in training, modality dropout.

    Initially the identity, except for the dropout. Normalisation leaves the background at exactly
    zero, which is also the brain's mean, and a missing modality is all zeros. A learned value in
    place of zeros separates the three, as a mask channel would, without a wider first convolution.

    Args:
        n_modalities: M.
        packed: p^3, channels per modality.
        dropout: Chance of hiding a modality in training.
    """

    def __init__(self, n_modalities: int, packed: int, dropout: float) -> None:
        super().__init__()
        self.packed, self.dropout = packed, dropout
        self.gate = zeroed(nn.Linear(n_modalities, n_modalities))
        self.background = nn.Parameter(torch.zeros(1, n_modalities))

    def forward(self, x: Tensor) -> Tensor:
        """Computes x g outside the background and b_m in it.

        g = 2 sigmoid(A p + a), with p in {0, 1}^M the modalities present.

        Args:
            x: Packed input (B, M p^3, D, H, W).
        Returns:
            The same shape.
        """
        if self.training:
            x = x * self._spread(self._keep(x))
        # One voxel of each packed block is enough to see whether a modality is present, and needs
        # an eighth of the memory traffic.
        present = (x[:, :: self.packed].abs().amax((2, 3, 4)) > 0).to(x.dtype)
        return torch.where(
            x == 0,
            self._spread(self.background),
            x * self._spread(2 * self.gate(present).sigmoid()),
        )

    def _keep(self, x: Tensor) -> Tensor:
        """Draws which modalities stay, (B, M) of 0 and 1; at least one."""
        keep = torch.rand(x.shape[0], x.shape[1] // self.packed, device=x.device) >= self.dropout
        return (keep | ~keep.any(1, keepdim=True)).to(x.dtype)

    def _spread(self, per_modality: Tensor) -> Tensor:
        """(B, M) -> (B, M p^3, 1, 1, 1), in the order of `pack_voxels`."""
        return (
            per_modality.unsqueeze(2).expand(-1, -1, self.packed).flatten(1)[:, :, None, None, None]
        )
