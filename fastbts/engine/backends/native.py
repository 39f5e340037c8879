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
from fastbts.device.runtime import Runtime, free_with
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import BaseEngine, Opened, Options
from fastbts.engine.backends.native_network import NativeNetwork
from fastbts.engine.backends.native_plan import Plan
from fastbts.engine.backends.native_reader import read_plan
from fastbts.engine.onnx_graph import read_graph


class Slot:
    """What one call at a time needs: the network in a workspace of its own.

    A call on a stream returns before its work is done. So the next one must be on the same stream,
    or come when the work is done; and the workspace's stream, which frees memory, waits for it.

    Args:
        plan: The network.
        index: Number of the CUDA device.
    """

    def __init__(self, plan: Plan, index: int) -> None:
        self.workspace = CudaWorkspace(index)
        self._network = NativeNetwork(plan, self.workspace)
        self._cuda, self._index = Runtime(), index
        with self._cuda.on(index):
            flag = self._cuda.api.cudaEventDisableTiming
            self._done = self._cuda("cudaEventCreateWithFlags", flag)
        free_with(self, self._cuda, index, "cudaEventDestroy", self._done)
        self._last: int | None = None  # stream of the last call with device arrays
        self._is_recorded = False  # in a graph of the caller's, which may run at any time

    def fits(self, stream: int | None) -> bool:
        """Whether no work is left of another stream than this."""
        if self._last in (None, stream):
            return True
        if self._is_recorded or (stream is not None and self._is_capturing(stream)):
            return False
        status, *_ = self._cuda.api.cudaEventQuery(self._done)
        return bool(status == self._cuda.api.cudaError_t.cudaSuccess)

    def enqueue(
        self, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        """Enqueues the run on a stream of the device, and returns."""
        self._last = stream
        try:
            self._network.run(tensor, text, logits, stream)
        finally:  # also a run that fails may have enqueued something
            self._follow(stream)

    def _follow(self, stream: int) -> None:
        """Lets the workspace's stream wait for the work of a call."""
        with self._cuda.on(self._index):
            if self._is_capturing(stream):
                self._is_recorded = True
                return
            self._cuda("cudaEventRecord", self._done, stream)
            self._cuda("cudaStreamWaitEvent", self.workspace.stream, self._done, 0)

    def _is_capturing(self, stream: int) -> bool:
        idle = self._cuda.api.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone
        return bool(self._cuda("cudaStreamIsCapturing", stream) != idle)

    def run(self, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        """Runs the network on arrays of the host, one case at a time."""
        here = self.workspace.kept("logits", (1, *logits.shape[1:]), np.float32)
        for b in range(len(tensor)):
            self._network.run(self.workspace.put(tensor[b : b + 1], "tensor"), text, here)
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
        call.enqueue(tensor, text, logits, stream)

    def _fits(self, call: Slot, stream: int | None) -> bool:
        return call.fits(stream)

    def _free(self, call: Slot) -> None:
        call.workspace.close()

    @classmethod
    def capabilities(cls) -> str:
        """Version and precisions; raises DeviceError without a CUDA device or cuda.bindings."""
        ops.n_cuda_devices()
        cls.package()
        return f"{__version__} on cuda: fp16, not yet run by any GPU"
