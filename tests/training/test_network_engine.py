"""A network in PyTorch as an engine."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fastbts import Segmenter
from training.network_engine import NetworkEngine


def test_a_network_segments_as_the_same_engine(
    voxel_segmenter: Segmenter, small_case: tuple[np.ndarray, np.ndarray]
) -> None:
    """A 1x1x1 convolution with the function of the tests' voxel engine gives the same labels."""
    images, affine = small_case
    network = nn.Conv3d(4, 3, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.fill_(-4.0)
        for region, modality in enumerate((0, 3, 2)):
            network.weight[region, modality] = 4.0
    segmenter = Segmenter(NetworkEngine(network, voxel_segmenter.engine.spec))
    ours, expected = (s.predict(images, affine=affine).labels for s in (segmenter, voxel_segmenter))
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(ours, expected)
