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

    text: NDArray[np.float32] | None
    """Text table baked into the engine, (K, T); None where the network reads no text."""

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
            network = core.read_model(bytes(file.payloads["model.onnx"]))
            self.text = _open_text(ov, network)
            self._model = core.compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise EngineFileError(f"{file.path}: OpenVINO {ov.__version__} cannot compile the network: {error}") from error
        self._tensor = ov.Tensor
        # A request belongs to one call at a time; calls from further threads make further requests.
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self.description = {
            "sha256": file.sha256,
            "license": file.manifest.get("license", "not stated"),
            "prompts": file.prompts,
            "backend": "openvino",
            "backend_version": ov.__version__.split("-")[0],
            "device": "cpu",
            "device_name": str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            "precision": self.precision,
            "threads": int(self._model.get_property("INFERENCE_NUM_THREADS")),
        }

    def infer(self, tensor: NDArray[np.float32], text: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Runs the network: (B, M, D, H, W) normalised images -> (B, K, D, H, W) logits.

        Args:
            tensor: The images.
            text: Text embeddings of length 1 in place of the baked prompts, in the shape of `self.text`.
        Raises:
            OptionsError: Wrong number of modalities, a spatial size that is no multiple of the stride, or a text table that
                does not fit.
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
        table = self._table(text)
        logits = np.empty((len(tensor), len(self.spec.regions), *tensor.shape[2:]), np.float32)
        request = self._take()
        request.set_input_tensor(0, self._tensor(np.ascontiguousarray(tensor, np.float32), shared_memory=True))
        if table is not None:
            request.set_input_tensor(1, self._tensor(table, shared_memory=True))
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

    def _table(self, text: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        if text is None:
            return self.text
        if self.text is None:
            raise OptionsError(f"{self.file.path}: its network reads no text; leave `text` out or load an engine that does")
        if text.shape != self.text.shape:
            raise OptionsError(f"text of shape {text.shape}: expected {self.text.shape}, one embedding per region")
        return np.ascontiguousarray(text, np.float32)

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


def _open_text(ov: Any, network: Any) -> NDArray[np.float32] | None:
    """Makes the input "text" one again and returns its default; None where the network has none.

    OpenVINO takes an ONNX input that has a default for a constant.
    """
    baked = [op for op in network.get_ops() if op.get_friendly_name() == "text" and op.get_type_name() == "Constant"]
    if not baked:
        return None
    default = np.array(baked[0].data, np.float32)
    parameter = ov.op.Parameter(ov.Type.f32, ov.PartialShape(list(default.shape)))
    parameter.set_friendly_name("text")
    baked[0].output(0).replace(parameter.output(0))
    network.add_parameters([parameter])
    return default


def _precision(core: Any, wanted: str) -> str:
    # bf16 that the CPU does not list is emulated (about 6x slower) or fails to compile.
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not has_bf16:
        raise DeviceError("precision 'bf16': this CPU does not compute in bf16; use precision='f32' or 'auto'")
    return "bf16" if wanted == "auto" and has_bf16 else wanted.replace("auto", "f32")
