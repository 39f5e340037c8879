"""The network in torch, for the contenders that use it."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.contender import Kit, Machine
from training.config import model_config
from training.model import UNet3d


def load_network(kit: Kit, machine: Machine) -> UNet3d:
    """The network with the engine's weights, in float32, on the machine's device."""
    torch.set_num_threads(machine.n_threads)
    network = UNet3d(model_config(kit.about["model"], str(kit.engine)))
    network.load_state_dict(torch.load(kit.weights, weights_only=True))
    return network.eval().to(machine.device)


def channels_last(network: UNet3d) -> UNet3d:
    """Sorts the weights of volumes as fast kernels read them."""
    for weight in network.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def versions(**others: Any) -> dict[str, Any]:
    return {"torch": torch.__version__, **others}
