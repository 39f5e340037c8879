"""A fake of the GPU that `benchmarks.gpu_predict` measures: an emulated device, torch on the CPU.

    python -m tests.fakes.gpu ARGUMENTS   # those of benchmarks.gpu_predict

What it prints as milliseconds are those of the emulation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_predict import Gpu, main
from benchmarks.torch_engine import TorchEngine
from tests.fakes import EmulatedCuda, cupy, emulated_cuda


class EmulatedTorchEngine(TorchEngine):
    """Computes on the CPU, in the order of a stream of the emulated device."""

    machine: EmulatedCuda

    @property
    def _on(self) -> str:
        return "cpu"

    def infer(
        self, tensor: Any, text: Any = None, *, out: Any = None, stream: int | None = None
    ) -> Any:
        if isinstance(tensor, np.ndarray):
            return super().infer(tensor, text, out=out)

        def work() -> None:
            x, y = (self.machine.view(a.address, a.shape, np.float32, 0) for a in (tensor, out))
            y[...] = self.logits(torch.from_numpy(x)).float().numpy()

        self.machine.enqueue(stream, work, tensor.address, out.address)
        return out

    def _replayed(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._run(self._ready(tensor))


class EmulatedGpu(Gpu):
    def __init__(self, machine: EmulatedCuda) -> None:
        self.machine = machine
        self.engine = type("Engine", (EmulatedTorchEngine,), {"machine": machine})

    def put(self, array: np.ndarray[Any, Any]) -> Any:
        return cupy.asarray(array)

    def wait(self) -> None:
        cupy.Device().synchronize()

    def describe(self) -> dict[str, Any]:
        return {"device": "emulated", "torch": torch.__version__, "emulated": True}


def emulated_main(arguments: Sequence[str]) -> int:
    with emulated_cuda() as machine:
        return main(arguments, EmulatedGpu(machine))


if __name__ == "__main__":
    sys.exit(emulated_main(sys.argv[1:]) > 0)
