"""ONNX Runtime runs the engine file's ONNX as it is, on the CPU or with its CUDA provider."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import (
    BaseEngine,
    Opened,
    Options,
    open_network,
    stored_precision,
)
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import call_body
from fastbts.errors import DeviceError, EngineFileError

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 has 10 bits of mantissa, less than the fp32 that was asked for.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
FATAL_ONLY = 4  # errors are raised; they need not be printed too


class ONNXRuntimeEngine(BaseEngine[Any]):
    """Runs an engine file in the precision its ONNX was exported in, fp32 or fp16."""

    backend = "onnxruntime"
    runtime_errors = (Exception,)  # ONNX Runtime's errors have no common base class

    def _open(self, options: Options) -> Opened[Any]:
        precision = stored_precision(self.file, options.precision)
        onnx_bytes = open_network(self.file)
        if precision == "fp32":
            # ONNX Runtime's own normalisation loses four digits in its sums.
            onnx_bytes = call_body(onnx_bytes, "InstanceNormalization", "fastbts")
        session = self._session(onnx_bytes, options.device, options.n_threads)
        about = {
            "backend_version": self.package().__version__,
            "precision": precision,
            "n_threads": options.n_threads,
        }
        return Opened(lambda: session, about)  # a session serves several calls at once

    def _run(self, call: Any, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        binding = call.io_binding()
        binding.bind_cpu_input("volume", tensor)
        if text is not None:
            binding.bind_cpu_input("text", text)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        options = self.package().RunOptions()
        with ThreadPoolExecutor(1) as pool:  # so that this thread can handle Ctrl-C
            running = pool.submit(call.run_with_iobinding, binding, options)
            try:
                running.result()
            except BaseException:
                options.terminate = True  # after the layer that runs now
                raise

    @classmethod
    def build(cls, file: EngineFile, precision: str, tensors: Sequence[Floats]) -> dict[str, bytes]:
        """No payload besides the ONNX, but checks that ONNX Runtime loads it."""
        stored_precision(file, precision)
        with cls.reported(EngineFileError, f"{file.path}: {cls.backend} cannot load the network"):
            cls._session(bytes(file.payloads["model.onnx"]), "cpu", 1)
        return {}

    @classmethod
    def capabilities(cls) -> str:
        """Version and execution providers."""
        ort = cls.package()
        providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
        return f"{ort.__version__} with {', '.join(providers)}: {', '.join(cls.row().precisions)}"

    @classmethod
    def _session(cls, onnx_bytes: bytes, device: str, n_threads: int) -> Any:
        ort, (provider, settings) = cls.package(), PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise DeviceError(
                f"device {device!r}: this ONNX Runtime has no {provider}; install it with: "
                "pip install onnxruntime-gpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = n_threads, FATAL_ONLY
        session = ort.InferenceSession(onnx_bytes, options, providers=[(provider, settings)])
        if session.get_providers()[0] != provider:  # ONNX Runtime falls back to the CPU silently
            raise DeviceError(
                f"device {device!r}: ONNX Runtime could not start {provider}; check that "
                "`nvidia-smi` lists a GPU"
            )
        return session
