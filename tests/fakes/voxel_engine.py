"""An engine in NumPy on an emulated CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.conftest import VoxelEngine
from tests.fakes import EmulatedCuda


class DeviceVoxelEngine(VoxelEngine):
    """`VoxelEngine` that computes in the order of a CUDA stream, in the memory of a device.

    Attributes:
        shapes: Of all tensors, in order.
        error: Raised by the next call.
    """

    def __init__(
        self, cuda: EmulatedCuda, device: str = "cuda:0", *, batch: int = 1, **spec: Any
    ) -> None:
        super().__init__(**spec)
        self.cuda, self.device, self.batch = cuda, device, batch
        self.description = {"backend": "test", "device": device, "precision": "fp32"}
        self.shapes: list[tuple[int, ...]] = []
        self.error: Exception | None = None

    def infer(
        self, tensor: Any, text: Any = None, *, out: Any = None, stream: int | None = None
    ) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        assert tensor.device == out.device == self.device
        assert stream is not None
        self.shapes.append(tensor.shape)

        def work() -> None:
            x, y = (self.cuda.view(a.address, a.shape, np.float32, a.index) for a in (tensor, out))
            VoxelEngine.infer(self, x, out=y)

        before = self.cuda.device
        self.cuda.cudaSetDevice(tensor.index)
        self.cuda.enqueue(stream, work, tensor.address, out.address)
        self.cuda.cudaSetDevice(before)
        return out
