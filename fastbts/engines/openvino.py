"""The CPU engine: OpenVINO compiles the engine file's ONNX in memory, for any spatial size."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.enginefile import EngineFile
from fastbts.errors import DeviceError, EngineFileError, OptionsError


class OpenVINOEngine:
    """Runs an engine file on the CPU; `infer` is safe to call from several threads at once.

    Args:
        file: The verified engine file.
        precision: "f32", "bf16", or "auto": bf16 where the CPU computes in it.
        threads: CPU threads; 0 for all.
    Raises:
        DeviceError: OpenVINO is not installed, or this CPU has no bf16.
        EngineFileError: OpenVINO refuses the network.
    """

    def __init__(self, file: EngineFile, *, precision: str = "auto", threads: int = 0) -> None:
        ov = _openvino()
        self.file, self.spec = file, file.spec
        core = ov.Core()
        self.precision = _precision(core, precision)
        # LATENCY: all threads work on one case. Never left to default: OpenVINO's own default precision differs by CPU.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = core.compile_model(core.read_model(bytes(file.payloads["model.onnx"])), "CPU", settings)
        except RuntimeError as error:
            raise EngineFileError(f"{file.path}: OpenVINO {ov.__version__} cannot compile the network: {error}") from error
        self._tensor = ov.Tensor
        # A request belongs to one call at a time; calls from further threads make further requests.
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self.description = {
            "sha256": file.sha256,
            "license": file.manifest.get("license", "not stated"),
            "backend": "openvino",
            "backend_version": ov.__version__.split("-")[0],
            "device": "cpu",
            "device_name": str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            "precision": self.precision,
            "threads": int(self._model.get_property("INFERENCE_NUM_THREADS")),
        }

    def infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the network: (B, M, D, H, W) normalised images -> (B, K, D, H, W) logits.

        Raises:
            OptionsError: Wrong number of modalities, or a spatial size that is no multiple of the stride.
            DeviceError: The runtime failed, for example for want of memory.
        """
        if (
            tensor.ndim != 5
            or tensor.shape[1] != len(self.spec.modalities)
            or any(n == 0 or n % self.spec.stride for n in tensor.shape[2:])
        ):
            raise OptionsError(
                f"tensor of shape {tensor.shape}: expected (B, {len(self.spec.modalities)}, D, H, W) with D, H, W multiples of "
                f"{self.spec.stride}"
            )
        logits = np.empty((len(tensor), len(self.spec.regions), *tensor.shape[2:]), np.float32)
        request = self._take()
        request.set_input_tensor(self._tensor(np.ascontiguousarray(tensor, np.float32), shared_memory=True))
        request.set_output_tensor(self._tensor(logits, shared_memory=True))
        try:
            request.infer()
        except RuntimeError as error:
            raise DeviceError(f"{self.file.path}: OpenVINO failed on a tensor of shape {tensor.shape}: {error}") from error
        self._requests.put(request)
        return logits

    def close(self) -> None:
        """Frees the network."""
        self._requests = SimpleQueue()
        self._model = None

    def _take(self) -> Any:
        if self._model is None:
            raise DeviceError(f"{self.file.path}: the engine has been closed; load it again")
        try:
            return self._requests.get_nowait()
        except Empty:
            return self._model.create_infer_request()


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise DeviceError("OpenVINO is not installed; install it with: pip install openvino") from error
    return openvino


def _precision(core: Any, wanted: str) -> str:
    # bf16 that the CPU does not list is emulated (about 6x slower) or fails to compile.
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not has_bf16:
        raise DeviceError("precision 'bf16': this CPU does not compute in bf16; use precision='f32' or 'auto'")
    return "bf16" if wanted == "auto" and has_bf16 else wanted.replace("auto", "f32")
