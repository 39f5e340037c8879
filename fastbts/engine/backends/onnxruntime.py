"""The small alternative: ONNX Runtime runs the engine file's ONNX as it is, on the CPU or with its CUDA provider."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbts.engine.backends.base import (
    Floats,
    check_arguments,
    closed,
    describe,
    open_text,
    stored_precision,
)
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import call_body
from fastbts.errors import DeviceError, EngineFileError
from fastbts.spec import EngineSpec

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 keeps 10 bits of mantissa: not what was asked for with float32.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
ERRORS_ONLY = 3


class ONNXRuntimeEngine:
    """Runs an engine file with ONNX Runtime; `infer` is safe to call from several threads at once.

    Args:
        file: The verified engine file.
        device: "cpu" (also "auto") or "cuda".
        precision: "auto", or what the ONNX says, "fp32" or "fp16": ONNX Runtime computes in that.
        threads: CPU threads; 0 for all.
    Raises:
        DeviceError: ONNX Runtime or its CUDA provider is not there, or a precision that it does not have.
        EngineFileError: ONNX Runtime refuses the network.
    """

    def __init__(
        self, file: EngineFile, *, device: str = "auto", precision: str = "auto", threads: int = 0
    ) -> None:
        ort = _onnxruntime()
        self.device = "cpu" if device == "auto" else device
        self.file, self.spec = file, file.spec
        onnx_bytes, self.text = open_text(file)
        precision = stored_precision(onnx_bytes, precision)
        if precision == "fp32":
            onnx_bytes = call_body(
                onnx_bytes, "InstanceNormalization", "fastbts"
            )  # its own sums lose four digits
        self._session: Any = _session(ort, onnx_bytes, file.path, self.device, threads)
        self.description = describe(
            file,
            backend="onnxruntime",
            backend_version=ort.__version__,
            device=self.device,
            precision=precision,
            threads=threads,
        )

    def infer(
        self, tensor: Floats, text: Floats | None = None, *, out: Floats | None = None
    ) -> Floats:
        """See `Engine.infer`."""
        tensor, table, logits = check_arguments(self.file, self.text, tensor, text, out)
        session = self._session
        if session is None:
            raise closed(self.file)
        binding = session.io_binding()
        binding.bind_cpu_input("volume", tensor)
        if table is not None:
            binding.bind_cpu_input("text", table)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise DeviceError(
                f"{self.file.path}: ONNX Runtime failed on a tensor of shape {tensor.shape}: {error}"
            ) from error
        return logits

    def close(self) -> None:
        """Frees the network."""
        self._session = None


def build(onnx_bytes: bytes, spec: EngineSpec, precision: str = "auto") -> dict[str, bytes]:
    """What an engine file for this backend holds: the ONNX itself, once it has been seen to load.

    Args:
        onnx_bytes: The network.
        spec: What the network takes and gives.
        precision: "fp32" or "fp16" to insist on what the ONNX must be; "auto" for what it is.
    Raises:
        DeviceError: ONNX Runtime is not installed, or another precision.
        EngineFileError: ONNX Runtime refuses the network.
    """
    stored_precision(onnx_bytes, precision)
    _session(_onnxruntime(), onnx_bytes, spec.name, "cpu", 1)
    return {"model.onnx": onnx_bytes}


def _session(ort: Any, onnx_bytes: bytes, source: str, device: str, threads: int) -> Any:
    provider, settings = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise DeviceError(
            f"device {device!r}: this ONNX Runtime has no {provider}; install it with: pip install onnxruntime-gpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, ERRORS_ONLY
    try:
        session = ort.InferenceSession(onnx_bytes, options, providers=[(provider, settings)])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise EngineFileError(
            f"{source}: ONNX Runtime {ort.__version__} cannot load the network: {error}"
        ) from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU without a word
        raise DeviceError(
            f"device {device!r}: ONNX Runtime could not start {provider}; `nvidia-smi` should list a GPU"
        )
    return session


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            "ONNX Runtime is not installed; install it with: pip install 'fastbts[onnxruntime]'"
        ) from error
    return onnxruntime
