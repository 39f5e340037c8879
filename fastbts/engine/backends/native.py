"""Our own CUDA kernels run the network: no TensorRT, no torch, nothing built ahead for a GPU.

The network is read from the nodes of the file's ONNX (`native_reader.py`); other networks than
ours are refused. It computes in float16 with sums in float32. **No GPU has run it yet.**
"""

from __future__ import annotations

import numpy as np

from fastbts import ops
from fastbts.about import __version__
from fastbts.device.arrays import DeviceArray
from fastbts.device.cuda import CudaWorkspace
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import BaseEngine, Opened, Options
from fastbts.engine.backends.native_network import NativeNetwork
from fastbts.engine.backends.native_plan import Plan
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.onnx_graph import read_graph


class Slot:
    """What one call at a time needs: the network in a workspace of its own.

    Args:
        plan: The network.
        index: Number of the CUDA device.
    """

    def __init__(self, plan: Plan, index: int) -> None:
        self.workspace = CudaWorkspace(index)
        self.network = NativeNetwork(plan, self.workspace)
        self.stream: int | None = None
        """Of the calls with device arrays, whose work may still run; None before the first."""

    def run(self, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        """Runs the network on arrays of the host, one case at a time."""
        here = self.workspace.kept("logits", (1, *logits.shape[1:]), np.float32)
        for b in range(len(tensor)):
            self.network.run(self.workspace.put(tensor[b : b + 1], "tensor"), text, here)
            logits[b] = self.workspace.get(here)[0][0]


class NativeEngine(BaseEngine[Slot]):
    """Runs an engine file on a CUDA device, in fp16."""

    backend = "native"
    isolated = True  # each call has its own memory

    def _open(self, options: Options) -> Opened[Slot]:
        ops.n_cuda_devices()  # says so where fastbts was built without CUDA
        plan = read_plan(read_graph(self.file.payloads["model.onnx"]), self.file.path)
        index = int(options.device.removeprefix("cuda:"))
        ready = [Slot(plan, index)]  # so that errors come on loading
        about = {"backend_version": __version__, "precision": "fp16"}
        return Opened(lambda: ready.pop() if ready else Slot(plan, index), about)

    def _run(self, call: Slot, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        call.run(tensor, text, logits)

    def _enqueue(
        self, call: Slot, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        call.stream = stream
        call.network.run(tensor, text, logits, stream)

    def _fits(self, call: Slot, stream: int | None) -> bool:
        """Memory is reused in the order of one stream; calls with NumPy arrays wait themselves."""
        return call.stream in (None, stream)

    def _free(self, call: Slot) -> None:
        call.workspace.close()

    @classmethod
    def capabilities(cls) -> str:
        """Version and precisions; raises DeviceError without cuda.bindings."""
        cls.package()
        return f"{__version__} on cuda: fp16, not yet run by any GPU"
