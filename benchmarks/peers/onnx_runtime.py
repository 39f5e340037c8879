"""ONNX Runtime with NumPy around it: crop, z-score, one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.numpy_steps import AROUND, OnePass


class OnnxRuntime(OnePass):
    """One pass over the brain box, in float32."""

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
            "around": AROUND,
        }

    def _logits(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        (logits,) = self._session.run(None, {"volume": tensor})
        return logits
