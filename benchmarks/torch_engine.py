"""The shipped network in torch, as an engine of fastbts: the measure for other backends.

    python -m benchmarks.torch_engine WEIGHTS.pt

writes the network's weights as torch reads them, where the developers' packages are (`make
install`); a machine with a GPU then needs torch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.load import default_engine_path
from training.config import model_config
from training.model import UNet3d

FORMS = ("eager", "graph", "compiled")
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def network(weights: Path | None = None) -> UNet3d:
    """The shipped network.

    Args:
        weights: A file of `python -m benchmarks.torch_engine`; None to read the engine file, which
            takes half a minute and the developers' packages.
    """
    path = default_engine_path()
    made = UNet3d(model_config(_file().manifest["training"]["recipe"]["model"], str(path))).eval()
    if weights is None:
        from training.start import begin_from  # needs monai and onnx

        begin_from(made, path)
    else:
        made.load_state_dict(torch.load(weights, weights_only=True))
    return made


def _file() -> EngineFile:
    return read_engine_file(default_engine_path())


def channels_last(model: UNet3d) -> UNet3d:
    """Sorts the weights of volumes as tensor cores read them."""
    for weight in model.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return model


class TorchEngine:
    """A network in torch on one device.

    Args:
        device: "cpu" or "cuda:N".
        precision: One of TYPES, for weights and features; logits are float32.
        form: One of FORMS; "graph" replays a CUDA graph per shape of the input.
    """

    batch = 1
    text = None

    def __init__(
        self, model: UNet3d, device: str = "cpu", precision: str = "fp32", form: str = "eager"
    ) -> None:
        self.spec, self.device, self.dtype = _file().spec, device, TYPES[precision]
        model = channels_last(model.to(self._on, self.dtype))
        self._run: Callable[[Tensor], Tensor] = (
            torch.compile(model, dynamic=False) if form == "compiled" else model
        )
        self._form, self._graphs = form, dict[tuple[int, ...], tuple[Any, Tensor, Tensor]]()
        self.description = {"backend": f"torch {form}", "device": device, "precision": precision}

    @property
    def _on(self) -> str:
        """The device in torch's words."""
        return self.device

    def infer(
        self, tensor: Any, text: Any = None, *, out: Any = None, stream: int | None = None
    ) -> Any:
        """See `fastbts.engine.DeviceEngine.infer`; arrays of the host are copied there and back."""
        if not isinstance(tensor, np.ndarray):
            queue = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
                stream or 0, self.device
            )
            with torch.cuda.stream(queue):
                from_dlpack(out).copy_(self.logits(from_dlpack(tensor)))
            return out
        result = self.logits(torch.from_numpy(tensor).to(self._on)).float().cpu().numpy()
        if out is None:
            return result
        out[...] = result
        return out

    @torch.inference_mode()
    def logits(self, tensor: Tensor) -> Tensor:
        """The logits of a tensor on the device, in the precision of the network."""
        if self._form == "graph":
            return self._replayed(tensor)
        return self._run(self._ready(tensor))

    def _ready(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)

    def _replayed(self, tensor: Tensor) -> Tensor:
        shape = tuple(tensor.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._captured(self._ready(tensor))
        graph, given, result = self._graphs[shape]
        given.copy_(tensor)
        graph.replay()
        return result

    def _captured(self, given: Tensor) -> tuple[Any, Tensor, Tensor]:
        """A graph, the tensor that it reads, and the one that it writes."""
        given = given.clone(memory_format=torch.preserve_format)
        for _ in range(3):  # cuDNN chooses its algorithms
            self._run(given)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._run(given)
        return graph, given, result

    def close(self) -> None:
        self._graphs.clear()


if __name__ == "__main__":
    torch.save(network().state_dict(), sys.argv[1])
