"""Pixel level: which voxels are brain, which modalities are there, and how much each counts.

Ours; the paper's abstract (arXiv 2507.09966 v1/v2) names only a pixel level. Works on the packed input, so that nothing runs
at full resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model.blocks import zeroed


class PixelFusion(nn.Module):
    """Brain mask, modality gate and, in training, modality dropout. Identity when fresh, but for the dropout.

    A missing modality is a channel of zeros; the background of every modality is zero after normalisation.

    Args:
        n_modalities: M.
        packed: p^3, channels per modality.
        n_out: Channels of the first convolution.
        dropout: Chance of hiding a modality in training.
    """

    def __init__(self, n_modalities: int, packed: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.packed, self.dropout = packed, dropout
        self.gate = zeroed(nn.Linear(n_modalities, n_modalities))
        # Convolving the mask by itself and adding is the same as one more input channel, but leaves the stem's 32 channels,
        # which the CPU's kernels like, and the weights of plain checkpoints as they are.
        self.mask = zeroed(nn.Conv3d(1, n_out, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes g = 2 sigmoid(A p + a) for present modalities p in {0, 1}^M, and the mask's part of the first convolution.

        Args:
            x: Packed input (B, M p^3, D, H, W).
        Returns:
            The gated input, same shape, and the offset to the first convolution, (B, n_out, D, H, W).
        """
        if self.training:
            x = x * self._spread(self._keep(x))
        # One voxel of each block tells for the block: an eighth of the memory traffic, and a brain has many blocks.
        size = x[:, :: self.packed].abs()  # (B, M, D, H, W)
        brain = (size.amax(1, keepdim=True) > 0).to(x.dtype)
        present = (size.amax((2, 3, 4)) > 0).to(x.dtype)
        return x * self._spread(2 * self.gate(present).sigmoid()), self.mask(brain)

    def _keep(self, x: Tensor) -> Tensor:
        """Draws which modalities stay, (B, M) of 0 and 1; never none."""
        keep = torch.rand(x.shape[0], x.shape[1] // self.packed, device=x.device) >= self.dropout
        return (keep | ~keep.any(1, keepdim=True)).to(x.dtype)

    def _spread(self, per_modality: Tensor) -> Tensor:
        """(B, M) -> (B, M p^3, 1, 1, 1), in the order of `pack_voxels`."""
        return per_modality.unsqueeze(2).expand(-1, -1, self.packed).flatten(1)[:, :, None, None, None]
