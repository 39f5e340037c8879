"""The native engine reads and computes what `training export` writes, for each kind of recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastbts.device.host import Host
from fastbts.engine.backends.native_network import NativeNetwork
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.onnx_graph import read_graph
from tests.training.conftest import Exported
from tests.training.kinds import CONFIGS, N_LEVELS, name_of, randomized, spec_of
from training.model import UNet3d, UNetConfig


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_an_exported_network_is_read(config: UNetConfig, exported: Exported) -> None:
    network = randomized(config)
    plan = read_plan(read_graph(exported(network, spec_of(config))), "exported")
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
def test_a_network_whose_text_changes_nothing_yet_is_read(exported: Exported) -> None:
    """The exporter drops a bias of zeros."""
    config = next(config for config in CONFIGS if config.semantic.uses_text)
    config = replace(config, widths=config.widths[:N_LEVELS])
    plan = read_plan(read_graph(exported(UNet3d(config).eval(), spec_of(config))), "exported")
    assert plan.head_mlp is not None
    assert not plan.head_mlp[1].bias.any()
