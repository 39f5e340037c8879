"""An expert's own script: NumPy around torch in bfloat16, one pass over the brain box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.numpy_steps import AROUND, OnePass


class TorchScript(OnePass):
    """One pass over the brain box.

    Args:
        compiled: By `torch.compile`, with frozen weights, once per size of the box.
    """

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled
        super().__init__()

    def load(self, kit: Kit, machine: Machine) -> None:
        import torch

        from benchmarks.peers.torch_network import channels_last, load_network, versions

        self._torch, self._spec, self._device = torch, kit.spec, machine.device
        network = channels_last(load_network(kit, machine).to(torch.bfloat16))
        self._network: Any = network
        if self._compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True
            self._network = torch.compile(network, dynamic=False)
        self.about = versions(precision="bf16", around=AROUND)

    def _logits(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            given = torch.from_numpy(tensor).to(self._device, torch.bfloat16)
            given = given.contiguous(memory_format=torch.channels_last_3d)
            return self._network(given).float().cpu().numpy()
