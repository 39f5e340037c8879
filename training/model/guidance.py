"""Semantic guidance: text vectors steer the image features.

Guidance by CLIP's text embeddings is the paper's (arXiv 2507.09966 v1/v2, abstract), FiLM (Perez et
al. 2018, arXiv 1709.07871) its author's; where they enter, and the shapes, are ours. E is the
length of the network's own text vectors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.blocks import zeroed


class TextTable(nn.Module):
    """t'_k = GELU(W_t sqrt(T) t_k + b): projects text embeddings to the network's width E."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)

    def forward(self, text: Tensor) -> Tensor:
        """Text embeddings of length 1, (K, T) -> (K, E).

        sqrt(T) makes the variance of the entries 1, as `nn.Linear` expects.
        """
        return functional.gelu(self.project(text * math.sqrt(text.shape[1])))


class SimilarityMap(nn.Module):
    """s_k(x) = exp(tau) cos(W_v F(x), W_s t'_k) + b_k: where the image matches prompt k.

    A logit, scaled and shifted as in SigLIP (Zhai et al. 2023, arXiv 2303.15343): exp(tau) begins
    at 10, and b at -2, since tumour is rare.
    """

    def __init__(self, n_channels: int, width: int, n_regions: int) -> None:
        super().__init__()
        self.image = nn.Conv3d(n_channels, width, 1)
        self.text = nn.Linear(width, width)
        self.tau = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.full((n_regions, 1, 1, 1), -2.0))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Features (B, C, D, H, W) and the table (K, E) -> logits (B, K, D, H, W)."""
        image = functional.normalize(self.image(x), dim=1)
        text = functional.normalize(self.text(table), dim=1)
        cosine = torch.matmul(text, image.flatten(2)).reshape(x.shape[0], -1, *x.shape[2:])
        return self.tau.exp() * cosine + self.bias


class CrossAttention(nn.Module):
    """Attention at the bottleneck: the text reads the image, then the image reads the text.

    Initially the identity: both end in a layer of zeros. One head each, as in Vaswani et al. 2017,
    arXiv 1706.03762, equation 1.
    """

    def __init__(self, n_channels: int, width: int) -> None:
        super().__init__()
        self.text_asks, self.image_key = nn.Linear(width, width), nn.Linear(n_channels, width)
        self.image_value, self.to_text = (
            nn.Linear(n_channels, width),
            zeroed(nn.Linear(width, width)),
        )
        self.image_asks, self.text_key = nn.Linear(n_channels, width), nn.Linear(width, width)
        self.text_value, self.to_image = (
            nn.Linear(width, width),
            zeroed(nn.Linear(width, n_channels)),
        )

    def forward(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Bottleneck (B, C, D, H, W) and the table (B, K, E) -> both again, same shapes."""
        voxels = x.flatten(2).transpose(1, 2)  # (B, D H W, C)
        read = attend(self.text_asks(table), self.image_key(voxels), self.image_value(voxels))
        table = table + self.to_text(read)
        read = attend(self.image_asks(voxels), self.text_key(table), self.text_value(table))
        return x + self.to_image(read).transpose(1, 2).reshape(x.shape), table


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(E)) v: (B, N, E), (B, L, E), (B, L, E) -> (B, N, E)."""
    return (query @ key.transpose(1, 2) / math.sqrt(query.shape[2])).softmax(2) @ value


class Film(nn.Module):
    """Scale and shift of the decoder levels from pooled bottleneck and table; initially zero.

    Not at the finest level: a pass over the full-resolution features is expensive, and the
    text-conditioned head weights its channels.
    """

    def __init__(
        self, n_channels: int, width: int, n_regions: int, levels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.trunk = nn.Linear(n_channels + n_regions * width, width)
        self.levels = nn.ModuleList(zeroed(nn.Linear(width, 2 * n)) for n in levels)

    def forward(self, pooled: Tensor, table: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Computes the scale and shift of each level.

        Args:
            pooled: Pooled bottleneck, (B, C).
            table: Text table, (B, K, E).
        Returns:
            Per level gamma and beta, each (B, C_l, 1, 1, 1).
        """
        hidden = functional.leaky_relu(self.trunk(torch.cat([pooled, table.flatten(1)], 1)), 0.01)
        pairs = [level(hidden)[:, :, None, None, None].chunk(2, dim=1) for level in self.levels]
        return [(gamma, beta) for gamma, beta in pairs]


class Guidance(nn.Module):
    """The three parts of guidance: similarity map, cross-attention and FiLM.

    Args:
        n_semantic: Channels at the level of the similarity map.
        n_bottleneck: Channels of the bottleneck.
        width: E.
        n_regions: K.
        levels: Channels of the decoder levels except the finest, coarsest first.
    """

    def __init__(
        self,
        n_semantic: int,
        n_bottleneck: int,
        width: int,
        n_regions: int,
        levels: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.similarity = SimilarityMap(n_semantic, width, n_regions)
        self.attention = CrossAttention(n_bottleneck, width)
        self.film = Film(n_bottleneck, width, n_regions, levels)
