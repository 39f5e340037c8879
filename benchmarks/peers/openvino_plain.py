"""OpenVINO as its documentation shows it, with NumPy around it: crop, z-score, one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine, Stages
from benchmarks.peers.numpy_steps import labels_of, prepared, zyx


class PlainOpenVINO:
    """One pass over the brain box.

    Args:
        precision: "bf16" or "f32".
    """

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self.stages_ms: dict[str, float] = {}

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
            "around": "NumPy: crop, clip, z-score, one pass, thresholds",
        }

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        clock = Stages()
        with clock("prepare"):
            case = prepared(zyx(images, affine), self._spec)
        with clock("network"):
            logits = self._network(case.tensor)[0]
        with clock("label"):
            labels = labels_of(logits[0], case, images.shape[1:], affine, self._spec)
        self.stages_ms = clock.ms
        return labels
