"""The CPU engine: OpenVINO compiles the engine file's ONNX in memory, for any spatial size."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from fastbts.enginefile import EngineFile
from fastbts.engines.common import Floats, check_arguments, describe
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


def _open_text(ov: Any, network: Any) -> Floats | None:
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
