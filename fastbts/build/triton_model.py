"""Triton's Python backend loads this file as `model.py`: segmentation by `fastbts.Segmenter`.

`fastbts export-triton` writes it into a model repository, next to the engine file. Arrays pass
through DLPack: `as_numpy()` and `Tensor(name, array)` of Triton 2.51 were built for NumPy 1, and
give wrong values with NumPy 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # only inside Triton's Python backend
from numpy.typing import NDArray

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
        try:
            images, affine = (_input(request, name) for name in ("images", "affine"))
            result = self._segmenter.predict(images, affine=affine)
        except Exception as error:  # one that is raised fails the other requests, too
            return triton.InferenceResponse(error=_error(error))
        volumes = np.array(list(result.volumes_ml.values()), np.float32)
        outputs = [_output("labels", result.labels), _output("volumes_ml", volumes)]
        return triton.InferenceResponse(output_tensors=outputs)


def _error(error: Exception) -> Any:
    """HTTP 400 or gRPC INVALID_ARGUMENT where the images are at fault, else 500 or INTERNAL."""
    bad_input = isinstance(error, FastBTSError) and isinstance(error, ValueError)
    code = triton.TritonError.INVALID_ARG if bad_input else triton.TritonError.INTERNAL
    return triton.TritonError(f"{type(error).__name__}: {error}", code)


def _input(request: Any, name: str) -> NDArray[Any]:
    """An input as an array. Triton's memory starts at any byte: such an input is copied."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return np.require(np.from_dlpack(tensor), requirements=["C", "A"])


def _output(name: str, array: NDArray[Any]) -> Any:
    return triton.Tensor.from_dlpack(name, np.require(array, requirements=["C", "W"]))
