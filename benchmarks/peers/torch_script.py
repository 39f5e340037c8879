"""An expert's own script: NumPy around torch in bfloat16, one pass over the brain box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine, Stages
from benchmarks.peers.numpy_steps import labels_of, prepared, zyx


class TorchScript:
    """One pass over the brain box.

    Args:
        compiled: By `torch.compile`, with frozen weights, once per size of the box.
    """

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled
        self.stages_ms: dict[str, float] = {}

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
        self.about = versions(
            precision="bf16", around="NumPy: crop, clip, z-score, one pass, thresholds"
        )

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        clock = Stages()
        with clock("prepare"):
            case = prepared(zyx(images, affine), self._spec)
        with clock("network"):
            logits = self._logits(case.tensor)
        with clock("label"):
            labels = labels_of(logits[0], case, images.shape[1:], affine, self._spec)
        self.stages_ms = clock.ms
        return labels

    def _logits(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            given = torch.from_numpy(tensor).to(self._device, torch.bfloat16)
            given = given.contiguous(memory_format=torch.channels_last_3d)
            return self._network(given).float().cpu().numpy()
