"""Loss: batch Dice + BCE per region with deep supervision, similarity map and bridge."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fastbts.labels import REGION_LABELS
from training.model import Outputs

Regions = Mapping[str, tuple[int, ...]]
"""Region -> its labels."""


def regions_of(label: Tensor, regions: Regions = REGION_LABELS) -> Tensor:
    """Label map (B, D, H, W) -> region masks (B, K, D, H, W) float32, which may overlap."""
    masks = [torch.stack([label == v for v in values]).any(0) for values in regions.values()]
    return torch.stack(masks, dim=1).float()


def dice_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over regions of 1 - soft Dice, plus BCE.

    The Dice is pooled over the batch (nnU-Net's batch Dice), so that a crop without a region does
    not dominate.
    """
    probability = logits.sigmoid()
    axes = (0, *range(2, logits.ndim))
    overlap, size = (probability * target).sum(axes), (probability + target).sum(axes)
    dice = (2 * overlap + 1.0) / (size + 1.0)  # +1 voxel: defined when the region is absent
    return 1 - dice.mean() + functional.binary_cross_entropy_with_logits(logits, target)


def region_overlap(found: Tensor, label: Tensor, regions: Regions = REGION_LABELS) -> Tensor:
    """Dice of each region, (K,); 1 where both are empty.

    Args:
        found: Region masks (B, K, D, H, W), bool.
        label: (B, D, H, W).
        regions: In the order of K.
    """
    target, axes = regions_of(label, regions).bool(), (0, 2, 3, 4)
    both, sizes = (found & target).sum(axes), found.sum(axes) + target.sum(axes)
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0)


def coarse_regions(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """Region masks (B, K, D, H, W) -> each region's share of coarser voxels, (B, K, *size)."""
    # The stub wants a triple.
    return functional.adaptive_avg_pool3d(target, size)  # type: ignore[arg-type]


def similarity_loss(similarity: Tensor, target: Tensor) -> Tensor:
    """Dice + BCE of the similarity map against the regions at its resolution.

    Args:
        similarity: Logits (B, K, D/8, H/8, W/8).
        target: Region masks (B, K, D, H, W).
    """
    return dice_bce(similarity.float(), coarse_regions(target, similarity.shape[2:]))


def bridge_loss(views: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between the bridge's views and CLIP's embeddings, both (B, 3, T)."""
    return 1 - functional.cosine_similarity(views.float(), teacher.float(), dim=2).mean()


def supervised_loss(
    outputs: Outputs,
    label: Tensor,
    side_weight: float,
    *,
    regions: Regions = REGION_LABELS,
    similarity_weight: float = 0.0,
    teacher: Tensor | None = None,
    bridge_weight: float = 0.0,
) -> Tensor:
    """Weighted mean over levels, plus similarity and bridge loss if the network has these outputs.

    Args:
        outputs: The network's outputs in training.
        label: (B, D, H, W).
        side_weight: Weight of the first coarser level; each further one has half of it.
        regions: The network's outputs, in their order.
        similarity_weight: Weight of `similarity_loss`.
        teacher: CLIP image embeddings (B, 3, T), or None.
        bridge_weight: Weight of `bridge_loss`.
    """
    target = regions_of(label, regions)
    loss, weight = dice_bce(outputs.levels[0].float(), target), side_weight
    total = 1.0
    for side in outputs.levels[1:]:
        loss = loss + weight * dice_bce(side.float(), coarse_regions(target, side.shape[2:]))
        total += weight
        weight /= 2
    loss = loss / total
    if outputs.similarity is not None:
        loss = loss + similarity_weight * similarity_loss(outputs.similarity, target)
    if outputs.views is not None and teacher is not None:
        loss = loss + bridge_weight * bridge_loss(outputs.views, teacher)
    return loss
