"""OpenVINO as its documentation shows it, with NumPy around it: crop, z-score, one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.numpy_steps import AROUND, OnePass


class PlainOpenVINO(OnePass):
    """One pass over the brain box.

    Args:
        precision: "bf16" or "f32".
    """

    def __init__(self, precision: str) -> None:
        self._precision = precision
        super().__init__()

    def load(self, kit: Kit, machine: Machine) -> None:
        import openvino as ov

        if machine.device != "cpu":
            raise NotImplementedError("OpenVINO has no CUDA device")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": machine.n_threads,
        }
        core = ov.Core()
        if self._precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise NotImplementedError("this CPU does not compute in bf16")
        self._spec = kit.spec
        self._network = core.compile_model(str(kit.onnx), "CPU", settings)
        self.about = {
            "openvino": ov.__version__.split("-")[0],
            "precision": self._precision.replace("f32", "fp32"),
            "around": AROUND,
        }

    def _logits(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._network(tensor)[0]
