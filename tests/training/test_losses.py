import math

import numpy as np
import pytest
import torch

from training.losses import dice_bce, regions_of, supervised_loss
from training.metrics import dice, region_dice


def test_regions_by_hand() -> None:
    regions = regions_of(torch.tensor([0, 1, 2, 4]).reshape(1, 1, 1, 4))
    assert regions.reshape(3, 4).tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_loss_by_hand() -> None:
    """Logits 0: probability 1/2 everywhere; 2 voxels of which 1 is target: Dice (2 * 0.5 + 1) / (2 + 1) = 2/3, BCE log 2."""
    loss = dice_bce(torch.zeros(1, 1, 1, 1, 2), torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2))
    assert loss.item() == pytest.approx(1 - 2 / 3 + math.log(2), rel=1e-6)


def test_perfect_logits_cost_nothing_even_without_tumour() -> None:
    for label in (torch.zeros(1, 4, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4, 4), 4, dtype=torch.uint8)):
        logits = 40 * (2 * regions_of(label) - 1)
        assert supervised_loss([logits], label, 0.4).item() < 1e-4


def test_small_et_survives_in_the_coarse_targets() -> None:
    label = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    label[0, 3, 3, 3] = 4
    full = 40 * (2 * regions_of(label) - 1)
    blind, seeing = -40 * torch.ones(1, 3, 4, 4, 4), -40 * torch.ones(1, 3, 4, 4, 4)
    seeing[0, :, 1, 1, 1] = 40
    assert supervised_loss([full, seeing], label, 0.4) < 1e-3 < supervised_loss([full, blind], label, 0.4)


def test_dice_by_hand() -> None:
    one, two = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert dice(one, two) == 0.5
    assert dice(one & ~one, two & ~two) == 1.0
    labels = np.array([0, 1, 2, 4], np.uint8)
    assert region_dice(labels, labels) == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    assert region_dice(labels, np.array([0, 1, 2, 2], np.uint8)) == {"WT": 1.0, "TC": pytest.approx(2 / 3), "ET": 0.0}
