"""Triton's Python backend loads this file as `model.py`: segmentation by `fastbts.Segmenter`.

`fastbts export-triton` writes it into a model repository, next to the engine file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # only inside Triton's Python backend

from fastbts import FastBTSError, Segmenter


class TritonPythonModel:
    """What Triton calls. One instance serves one request at a time; see `instance_group`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads and warms up the engine, once per instance."""
        on_gpu = args["model_instance_kind"] == "GPU"  # Triton makes instances on each GPU
        device = f"cuda:{args['model_instance_device_id']}" if on_gpu else "auto"
        self._segmenter = Segmenter(Path(__file__).with_name("engine.fbts"), device=device)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; bad input fails only its own request."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Frees the engine."""
        self._segmenter.close()

    def _answer(self, request: Any) -> Any:
        images, affine = (
            triton.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("images", "affine")
        )
        try:
            result = self._segmenter.predict(images, affine=affine.astype(np.float64))
        except FastBTSError as error:
            return triton.InferenceResponse(
                error=triton.TritonError(f"{type(error).__name__}: {error}")
            )
        labels = triton.Tensor("labels", np.ascontiguousarray(result.labels))
        volumes = triton.Tensor(
            "volumes_ml", np.array(list(result.volumes_ml.values()), np.float32)
        )
        return triton.InferenceResponse(output_tensors=[labels, volumes])
