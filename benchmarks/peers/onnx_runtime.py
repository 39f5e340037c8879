"""ONNX Runtime with NumPy around it: crop, z-score, one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine, Stages
from benchmarks.peers.numpy_steps import labels_of, prepared, zyx


class OnnxRuntime:
    """One pass over the brain box, in float32."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    def load(self, kit: Kit, machine: Machine) -> None:
        import onnxruntime as ort

        provider = "CPUExecutionProvider" if machine.device == "cpu" else "CUDAExecutionProvider"
        if provider not in ort.get_available_providers():
            raise NotImplementedError(f"this onnxruntime has no {provider}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = machine.n_threads
        self._spec = kit.spec
        self._session = ort.InferenceSession(str(kit.onnx), options, providers=[provider])
        self.about = {
            "onnxruntime": ort.__version__,
            "precision": "fp32",
            "around": "NumPy: crop, clip, z-score, one pass, thresholds",
        }

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        clock = Stages()
        with clock("prepare"):
            case = prepared(zyx(images, affine), self._spec)
        with clock("network"):
            (logits,) = self._session.run(None, {"volume": case.tensor})
        with clock("label"):
            labels = labels_of(logits[0], case, images.shape[1:], affine, self._spec)
        self.stages_ms = clock.ms
        return labels
