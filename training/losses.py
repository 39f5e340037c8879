"""Loss: batch Dice + binary cross-entropy per region, with deep supervision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastbts.labels import REGION_LABELS


def regions_of(label: Tensor) -> Tensor:
    """Label map (B, D, H, W) -> overlapping region masks (B, 3, D, H, W) float32, WT, TC, ET."""
    return torch.stack([torch.isin(label, torch.tensor(v, device=label.device)) for v in REGION_LABELS.values()], dim=1).float()


def dice_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over regions of (1 - soft Dice over the batch) + BCE.

    The Dice is pooled over the batch (nnU-Net's batch Dice), so that a crop without a region does not dominate.
    """
    probability = logits.sigmoid()
    axes = (0, *range(2, logits.ndim))
    overlap, size = (probability * target).sum(axes), (probability + target).sum(axes)
    dice = (2 * overlap + 1.0) / (size + 1.0)  # +1 voxel: defined when the region is absent
    return 1 - dice.mean() + functional.binary_cross_entropy_with_logits(logits, target)


def supervised_loss(outputs: list[Tensor], label: Tensor, side_weight: float) -> Tensor:
    """Full-resolution loss plus the coarser levels', whose targets are max-pooled so that small ET does not vanish."""
    target = regions_of(label)
    loss, weight = dice_bce(outputs[0].float(), target), side_weight
    total = 1.0
    for side in outputs[1:]:
        pooled = functional.adaptive_max_pool3d(target, side.shape[2:])
        loss, total = loss + weight * dice_bce(side.float(), pooled), total + weight
        weight /= 2
    return loss / total
