"""The network: a 3D U-Net with the semantic mechanisms that the recipe switches on.

`light` packs 2x2x2 voxels into channels before the first convolution (`patch = 2`), so that no
convolution runs at full resolution; `full` is the classical network (`patch = 1`). Both give logits
at full resolution. Encoder, decoder, normalisation and activation follow nnU-Net (Isensee et al.
2021, doi:10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.model.attention import SemanticAttention
from training.model.blocks import ConvBlock, pack_voxels, unpack_voxels, zeroed
from training.model.bridge import SemanticBridge
from training.model.config import UNetConfig
from training.model.fusion import PixelFusion
from training.model.guidance import Guidance, TextTable
from training.model.head import TextHead
from training.model.text import orthonormal_vectors


@dataclass(frozen=True)
class Outputs:
    """Outputs of the network in training.

    Attributes:
        levels: Logits (B, K, D, H, W), then of the coarser levels, (B, K, D/s, H/s, W/s).
        similarity: Similarity map (B, K, D/8, H/8, W/8), logits; None without guidance.
        views: The bridge's estimate of the teacher's embeddings (B, 3, T); None without a teacher.
    """

    levels: list[Tensor]
    similarity: Tensor | None = None
    views: Tensor | None = None


class UNet3d(nn.Module):
    """3D U-Net from normalised modalities to region logits.

    Args:
        config: Shape of the backbone and the mechanisms.
        text: Default text embeddings of length 1, (K, T); None for orthonormal vectors. Only with
            guidance or text-conditioned head.
    """

    def __init__(self, config: UNetConfig, text: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        widths, packed = config.widths, config.patch**3
        self.encoder = nn.ModuleList(
            [ConvBlock(config.n_modalities * packed, widths[0], norm=config.norm)]
        )
        self.encoder.extend(
            ConvBlock(a, b, stride=2, norm=config.norm) for a, b in pairwise(widths)
        )
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in pairs)
        self.decoder = nn.ModuleList(ConvBlock(2 * b, b, norm=config.norm) for _, b in pairs)
        self.head = nn.Conv3d(widths[0], config.n_regions * packed, 1)
        # Deep supervision: a head per decoder level except the finest and the two coarsest (too few
        # voxels). They begin at zero because they are not exported: a run that starts from an
        # engine must begin without their noise.
        self.side_heads = nn.ModuleList(
            zeroed(nn.Conv3d(w, config.n_regions, 1)) for w in widths[1:-1]
        )
        # After the backbone, so that a seed gives the same backbone with any mechanisms.
        self._add_mechanisms(text)

    def _add_mechanisms(self, text: Tensor | None) -> None:
        config, on = self.config, self.config.semantic
        widths, packed = config.widths, config.patch**3
        level, regions = config.semantic_level, config.n_regions
        self.fusion = self.bridge = self.table = self.guidance = self.text_head = None
        if on.fusion:
            self.fusion = PixelFusion(config.n_modalities, packed, on.modality_dropout)
        if on.bridge:
            planes = on.bridge_width, on.teacher_width, on.token_width
            self.bridge = SemanticBridge(widths[level], *planes)
        if on.uses_text:
            self.table = TextTable(on.text_width, on.width)
        if on.guidance:
            self.guidance = Guidance(widths[level], widths[-1], on.width, regions, widths[-2:0:-1])
        if on.head:
            self.text_head = TextHead(widths[0], packed, widths[-1], on.width)
        gates = {}
        for i, stride in enumerate(config.strides[:-1]):
            if on.attention and stride in (2, 4):
                finer, seen = config.strides[level] // (2 * stride), regions if on.guidance else 0
                gates[str(i)] = SemanticAttention(widths[i + 1], on.gate_width, seen, finer)
        self.gates = nn.ModuleDict(gates)
        if on.uses_text:
            default = orthonormal_vectors(regions, on.text_width)
            self.register_buffer("text", torch.from_numpy(default) if text is None else text)

    def forward(
        self, x: Tensor, text: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor | Outputs:
        """Computes region logits.

        Args:
            x: (B, M, D, H, W), axes (Z, Y, X), each a multiple of `config.stride`.
            text: Text embeddings of length 1, (K, T), instead of the default.
            tokens: CLIP's patch tokens, (B, T', D/8, H/8, W/8), if and only if `token_width` > 0.
        Returns:
            Logits (B, K, D, H, W) in eval mode; `Outputs` in training mode.
        """
        patch = self.config.patch
        x = pack_voxels(x, patch) if patch > 1 else x
        if self.training and x.is_cpu and self.config.norm != "instance":
            # A quarter less time per step (InstanceNorm would go back to the other layout).
            x = x.contiguous(memory_format=torch.channels_last_3d)
        table = None
        if self.table is not None:
            table = self.table(self.text if text is None else text)  # (K, E)
        skips, similarity, views = self._encode(x, table, tokens)
        x, films, pooled = skips[-1], None, None
        if table is not None:
            # (B, K, E): cross-attention makes a table of each case.
            table = table.unsqueeze(0).expand(x.shape[0], -1, -1)
            if self.guidance is not None:
                x, table = self.guidance.attention(x, table)
            pooled = x.mean((2, 3, 4))
        if self.guidance is not None:
            films = self.guidance.film(pooled, table)
        features = self._decode(x, skips, films, similarity)
        if self.text_head is None:
            logits = self.head(features[-1])
        else:
            logits = self.text_head(features[-1], self.head, pooled, table)
        logits = unpack_voxels(logits, patch) if patch > 1 else logits
        if not self.training:
            return logits
        sides = [head(f) for head, f in zip(self.side_heads, features[-2::-1], strict=False)]
        return Outputs([logits, *sides], similarity, views)

    def _encode(
        self, x: Tensor, table: Tensor | None, tokens: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
        """Packed input -> features, finest first; similarity map or None; views or None."""
        skips: list[Tensor] = []
        similarity = views = None
        if self.fusion is not None:
            x = self.fusion(x)
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level == self.config.semantic_level:
                if self.bridge is not None:
                    x, views = self.bridge(x, tokens)
                if self.guidance is not None:
                    similarity = self.guidance.similarity(x, table)
            skips.append(x)
        return skips, similarity, views

    def _decode(
        self,
        x: Tensor,
        skips: list[Tensor],
        films: list[tuple[Tensor, Tensor]] | None,
        similarity: Tensor | None,
    ) -> list[Tensor]:
        """Bottleneck and encoder features, finest first -> decoder features, coarsest first."""
        features = []
        for i, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            below, skip, level = skips[-1 - i], skips[-2 - i], str(len(skips) - 2 - i)
            if level in self.gates:
                skip = self.gates[level](skip, below, x, similarity)
            film = films[i] if films and i < len(films) else None
            x = block(self._joined(up(x), skip), film=film)
            features.append(x)
        return features

    def _joined(self, x: Tensor, skip: Tensor) -> Tensor:
        """Up-sampled features and a skip, (B, C, D, H, W) each, for a decoder block."""
        return torch.cat([x, skip], dim=1)
