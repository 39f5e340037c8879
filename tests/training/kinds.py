"""A small network of each kind of recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fastbts import EngineSpec
from tests.training.tiny import TINY, randomize_zeros, rounded
from training.config import RECIPES, load_recipe
from training.model import UNet3d, UNetConfig

WIDTHS: Any = {"text_width": 16, "width": 8, "bridge_width": 4, "gate_width": 4}
N_LEVELS = 3
"""Of a network without mechanisms, whose levels are alike: each level takes seconds to export."""
NAMES = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]


def narrow(config: UNetConfig) -> UNetConfig:
    """A recipe's network with few channels."""
    n = len(config.widths) if config.semantic.bridge else N_LEVELS
    widths = TINY.widths[:1] + TINY.widths[1:2] * (n - 1)
    return replace(config, widths=widths, semantic=replace(config.semantic, **WIDTHS))


CONFIGS = list(dict.fromkeys(narrow(load_recipe(name).model) for name in NAMES))
"""Without those that are the same."""


def name_of(config: UNetConfig) -> str:
    """Name in the ids of tests."""
    return f"{config.norm}-{len(config.widths)}-{config.patch}"


def spec_of(config: UNetConfig) -> EngineSpec:
    """That of a network of so many images and regions."""
    spec, n = EngineSpec(stride=config.stride), config.n_regions
    return replace(
        spec,
        modalities=spec.modalities[: config.n_modalities],
        regions=spec.regions[:n],
        labels=spec.labels[:n],
        thresholds=spec.thresholds[:n],
        temperatures=spec.temperatures[:n],
    )


def randomized(config: UNetConfig) -> UNet3d:
    """A network as if it were trained: nothing is 0, no statistics are those of the start."""
    torch.manual_seed(0)
    network = randomize_zeros(UNet3d(config)).eval()
    with torch.no_grad():
        for name, values in network.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(0, 0.1)
            if name.endswith("running_var"):
                values.uniform_(0.5, 2)
    return rounded(network)
