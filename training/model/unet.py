"""The 3D U-Net backbone.

Two sizes come from the recipes: `light` packs 2x2x2 voxels into channels before the first convolution (`patch = 2`), so
that no convolution runs at full resolution; `full` is the classical network (`patch = 1`). The logits have full resolution
either way. Encoder, decoder, normalisation and activation follow nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the backbone."""

    n_modalities: int = 4
    """Input channels, in the order of `fastbts.MODALITIES`."""
    n_regions: int = 3
    """Output channels: WT, TC, ET."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels per level, finest first; each level halves the resolution."""
    patch: int = 2
    """Voxels per axis that the stem packs into channels, and that the head unpacks: 1 or 2."""

    @property
    def stride(self) -> int:
        """Spatial sizes must be multiples of this."""
        return self.patch * 2 ** (len(self.widths) - 1)


def pack_voxels(x: Tensor, patch: int) -> Tensor:
    """Moves each patch x patch x patch block of voxels into channels: (B, C, D, H, W) -> (B, C p^3, D/p, H/p, W/p)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // patch, patch, h // patch, patch, w // patch, patch)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * patch**3, d // patch, h // patch, w // patch)


def unpack_voxels(x: Tensor, patch: int) -> Tensor:
    """Inverse of `pack_voxels`: (B, C p^3, D, H, W) -> (B, C, D p, H p, W p)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c // patch**3, patch, patch, patch, d, h, w)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // patch**3, d * patch, h * patch, w * patch)


class ConvBlock(nn.Sequential):
    """(conv 3^3, InstanceNorm, LeakyReLU) twice; the first convolution may stride."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__(*self._unit(n_in, n_out, stride), *self._unit(n_out, n_out, 1))

    @staticmethod
    def _unit(n_in: int, n_out: int, stride: int) -> tuple[nn.Module, ...]:
        # No convolution bias: InstanceNorm would subtract it again.
        return (
            nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
            nn.InstanceNorm3d(n_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )


class UNet3d(nn.Module):
    """3D U-Net from normalised modalities to region logits."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, packed = config.widths, config.patch**3
        self.encoder = nn.ModuleList([ConvBlock(config.n_modalities * packed, widths[0])])
        self.encoder.extend(ConvBlock(a, b, stride=2) for a, b in pairwise(widths))
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in pairs)
        self.decoder = nn.ModuleList(ConvBlock(2 * b, b) for _, b in pairs)
        self.head = nn.Conv3d(widths[0], config.n_regions * packed, 1)
        # Deep supervision: one head per decoder level but the finest and the two coarsest (too few voxels to learn from).
        self.side_heads = nn.ModuleList(nn.Conv3d(w, config.n_regions, 1) for w in widths[1:-1])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Computes region logits.

        Args:
            x: (B, M, D, H, W), D, H, W multiples of `config.stride`; (D, H, W) are the voxel axes (Z, Y, X).
        Returns:
            Logits (B, K, D, H, W) in eval mode; in training mode a list with the logits first and the deep-supervision logits
            of the coarser levels after them, (B, K, D/s, H/s, W/s).
        """
        skips = []
        x = pack_voxels(x, self.config.patch) if self.config.patch > 1 else x
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        skips.pop()
        features = []
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
            features.append(x)
        logits = self.head(x)
        logits = unpack_voxels(logits, self.config.patch) if self.config.patch > 1 else logits
        if not self.training:
            return logits
        return [logits, *(head(f) for head, f in zip(self.side_heads, features[-2::-1], strict=False))]
