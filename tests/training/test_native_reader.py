"""The native engine reads and computes what `training export` writes, for each kind of recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fastbts import EngineSpec
from fastbts.device.host import Host
from fastbts.engine.backends.native_network import NativeNetwork
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.onnx_graph import read_graph
from tests.training.tiny import TINY, randomize_zeros
from training.config import RECIPES, load_recipe
from training.export import halve_weights, to_onnx
from training.model import UNet3d, UNetConfig

WIDTHS: Any = {"text_width": 16, "width": 8, "bridge_width": 4, "gate_width": 4}
NAMES = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]


def narrow(config: UNetConfig) -> UNetConfig:
    """A recipe's network with few channels."""
    widths = TINY.widths[:1] + TINY.widths[1:2] * (len(config.widths) - 1)
    return replace(config, widths=widths, semantic=replace(config.semantic, **WIDTHS))


CONFIGS = list(dict.fromkeys(narrow(load_recipe(name).model) for name in NAMES))
"""Without those that are the same."""


def spec_of(config: UNetConfig) -> EngineSpec:
    """That of a network of so many images and regions."""
    spec = EngineSpec(stride=config.stride)
    n_images, n_regions = config.n_modalities, config.n_regions
    return replace(spec, modalities=spec.modalities[:n_images], regions=spec.regions[:n_regions])


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
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    return network


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.norm}-{len(c.widths)}-{c.patch}")
def test_an_exported_network_is_read(config: UNetConfig) -> None:
    network = randomized(config)
    model = halve_weights(to_onnx(network, spec_of(config)))
    plan = read_plan(read_graph(model.SerializeToString()), "exported")
    side = 2 * config.stride
    shape = (1, config.n_modalities, side, side, side)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    x[:, 1:2] = 0
    with torch.inference_mode():
        exact = network(torch.from_numpy(x)).numpy()
    text = network.get_buffer("text").numpy() if config.semantic.uses_text else None
    NativeNetwork(plan, Host(), 2).run(x, text, logits := np.empty_like(exact))
    assert np.abs(logits - exact).max() <= 1e-4 * np.abs(exact).max()


@pytest.mark.slow
def test_a_network_whose_text_changes_nothing_yet_is_read() -> None:
    """The exporter drops a bias of zeros."""
    config = next(config for config in CONFIGS if config.semantic.uses_text)
    model = to_onnx(UNet3d(config).eval(), EngineSpec(stride=config.stride))
    plan = read_plan(read_graph(model.SerializeToString()), "exported")
    assert plan.head_mlp is not None
    assert not plan.head_mlp[1].bias.any()
