"""ONNX Runtime runs the engine file's ONNX as it is, on the CPU or with its CUDA provider."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastbts.engine.backends.base import (
    BaseEngine,
    Floats,
    Opened,
    Options,
)
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import call_body
from fastbts.engine.precision import network_in
from fastbts.errors import DeviceError, EngineFileError

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {}),
}
FATAL_ONLY = 4  # errors are raised; they need not be printed too


class ONNXRuntimeEngine(BaseEngine[Any]):
    """Runs an engine file in fp32, tf32 (CUDA only) or fp16. The CPU computes fp16 in float32."""

    backend = "onnxruntime"
    runtime_errors = (Exception,)  # ONNX Runtime's errors have no common base class

    def _open(self, options: Options) -> Opened[Any]:
        precision = "fp32" if options.precision == "auto" else options.precision
        onnx_bytes = network_in(self.file, precision)
        if precision == "fp32":
            # ONNX Runtime's own normalisation loses four digits in its sums.
            onnx_bytes = call_body(onnx_bytes, "InstanceNormalization", "fastbts")
        session = self._session(onnx_bytes, options._replace(precision=precision))
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
    def build(
        cls, file: EngineFile, precision: str, tensors: Sequence[Floats], max_batch: int = 1
    ) -> dict[str, bytes]:
        """No payload besides the ONNX, but checks that ONNX Runtime loads it."""
        with cls.reported(EngineFileError, f"{file.path}: {cls.backend} cannot load the network"):
            cls._session(network_in(file, precision), Options("cpu", "fp32", 1))
        return {}

    @classmethod
    def capabilities(cls) -> str:
        """Version and execution providers."""
        ort = cls.package()
        providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
        return f"{ort.__version__} with {', '.join(providers)}: {', '.join(cls.row().precisions)}"

    @classmethod
    def _session(cls, onnx_bytes: bytes, wanted: Options) -> Any:
        ort, device = cls.package(), wanted.device
        provider, settings = PROVIDERS[device]
        if device == "cuda":
            # TF32 has 10 bits of mantissa, less than the fp32 that was asked for.
            settings = {"use_tf32": "0" if wanted.precision == "fp32" else "1"}
        elif wanted.precision == "tf32":
            raise DeviceError(
                "precision 'tf32': only GPUs compute in it; use device='cuda' or precision='fp32'"
            )
        if provider not in ort.get_available_providers():
            raise DeviceError(
                f"device {device!r}: this ONNX Runtime has no {provider}; install it with: "
                "pip install onnxruntime-gpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = wanted.n_threads
        options.log_severity_level = FATAL_ONLY
        session = ort.InferenceSession(onnx_bytes, options, providers=[(provider, settings)])
        if session.get_providers()[0] != provider:  # ONNX Runtime falls back to the CPU silently
            raise DeviceError(
                f"device {device!r}: ONNX Runtime could not start {provider}; check that "
                "`nvidia-smi` lists a GPU"
            )
        return session
