import math

import pytest
import torch

from training.loop.losses import (
    bridge_loss,
    coarse_regions,
    dice_bce,
    regions_of,
    similarity_loss,
    supervised_loss,
)
from training.model import Outputs


def test_regions_by_hand() -> None:
    regions = regions_of(torch.tensor([0, 1, 2, 4]).reshape(1, 1, 1, 4))
    assert regions.reshape(3, 4).tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_loss_by_hand() -> None:
    """Probability 1/2 on 2 voxels, 1 of them target: Dice (2 * 0.5 + 1) / 3 = 2/3, BCE log 2."""
    loss = dice_bce(torch.zeros(1, 1, 1, 1, 2), torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2))
    assert loss.item() == pytest.approx(1 - 2 / 3 + math.log(2), rel=1e-6)


def test_perfect_logits_have_no_loss_even_without_tumour() -> None:
    for label in (
        torch.zeros(1, 4, 4, 4, dtype=torch.uint8),
        torch.full((1, 4, 4, 4), 4, dtype=torch.uint8),
    ):
        logits = 40 * (2 * regions_of(label) - 1)
        assert supervised_loss(Outputs([logits]), label, 0.4).item() < 1e-4


def test_coarse_targets_are_shares_of_a_voxel() -> None:
    """One enhancing voxel of eight is 1/8 of the coarse one, so a region keeps its size."""
    label = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    label[0, 3, 3, 3] = 4
    coarse = coarse_regions(regions_of(label), (4, 4, 4))
    assert coarse[0, :, 1, 1, 1].tolist() == [1 / 8] * 3
    assert coarse.sum() * 8 == 3
    full = 40 * (2 * regions_of(label) - 1)
    blind, seeing = -40 * torch.ones(1, 3, 4, 4, 4), -40 * torch.ones(1, 3, 4, 4, 4)
    seeing[0, :, 1, 1, 1] = math.log(1 / 7)  # probability 1/8
    assert supervised_loss(Outputs([full, seeing]), label, 0.4) < supervised_loss(
        Outputs([full, blind]), label, 0.4
    )


def test_bridge_loss_by_hand() -> None:
    """Three views at 0, 90 and 180 degrees to the teacher: 0, 1 and 2, mean 1."""
    views = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    assert bridge_loss(views, teacher).item() == pytest.approx(1.0, abs=1e-6)
    assert bridge_loss(views, views).item() == pytest.approx(0.0, abs=1e-6)


def test_similarity_loss_by_hand() -> None:
    """One of two coarse voxels is all ET; logits 0: as in `test_loss_by_hand`."""
    label = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    label[0, :, :, 2:] = 4
    loss = similarity_loss(torch.zeros(1, 3, 1, 1, 2), regions_of(label))
    assert loss.item() == pytest.approx(1 - 2 / 3 + math.log(2), rel=1e-6)


def test_semantic_losses_need_their_outputs() -> None:
    label = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    logits, similarity = torch.zeros(1, 3, 2, 2, 4), torch.zeros(1, 3, 1, 1, 2)
    views, teacher = torch.tensor([[[1.0, 0.0]] * 3]), torch.tensor([[[0.0, 1.0]] * 3])
    plain = supervised_loss(
        Outputs([logits]), label, 0.4, similarity_weight=9.0, teacher=teacher, bridge_weight=9.0
    )
    assert plain == dice_bce(logits, regions_of(label))
    outputs = Outputs([logits], similarity, views)
    assert supervised_loss(outputs, label, 0.4, bridge_weight=9.0) == plain, (
        "no teacher, no weight: nothing is added"
    )
    full = supervised_loss(
        outputs, label, 0.4, similarity_weight=0.5, teacher=teacher, bridge_weight=2.0
    )
    assert (full - plain).item() == pytest.approx(
        0.5 * similarity_loss(similarity, regions_of(label)).item() + 2.0, rel=1e-5
    )
