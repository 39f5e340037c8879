"""The CPU engine: OpenVINO compiles the engine file's ONNX in memory, for any spatial size."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from fastbts.enginefile import EngineFile
from fastbts.engines.common import Floats, check_arguments, describe, open_text
from fastbts.engines.openvino_nodes import register_nodes
from fastbts.errors import DeviceError, EngineFileError


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
        onnx_bytes, self.text = open_text(file)
        core = ov.Core()
        register_nodes(core)
        self.precision = _precision(core, precision)
        # LATENCY: all threads work on one case. Never left to default: OpenVINO's own default precision differs by CPU.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = core.compile_model(core.read_model(onnx_bytes), "CPU", settings)
        except RuntimeError as error:
            raise EngineFileError(f"{file.path}: OpenVINO {ov.__version__} cannot compile the network: {error}") from error
        self._tensor = ov.Tensor
        # A request belongs to one call at a time; calls from further threads make further requests.
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self.description = describe(
            file,
            backend="openvino",
            backend_version=ov.__version__.split("-")[0],
            device="cpu",
            device_name=str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            precision=self.precision,
            threads=int(self._model.get_property("INFERENCE_NUM_THREADS")),
        )

    def infer(self, tensor: Floats, text: Floats | None = None, *, out: Floats | None = None) -> Floats:
        """See `Engine.infer`."""
        tensor, table, logits = check_arguments(self.file, self.text, tensor, text, out)
        request = self._take()
        request.set_input_tensor(0, self._tensor(tensor, shared_memory=True))
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
    if wanted == "f16":  # its CPU plugin would take bf16 instead, without a word
        raise DeviceError("precision 'f16': OpenVINO's CPU backend has none; use precision='f32', 'bf16' or 'auto'")
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not has_bf16:
        raise DeviceError("precision 'bf16': this CPU does not compute in bf16; use precision='f32' or 'auto'")
    return "bf16" if wanted == "auto" and has_bf16 else wanted.replace("auto", "f32")
