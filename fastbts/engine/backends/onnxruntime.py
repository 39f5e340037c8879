"""ONNX Runtime runs the engine file's ONNX as it is, on the CPU or with its CUDA provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np

from fastbts.device.arrays import DeviceArray
from fastbts.engine.backends import device_kind
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import (
    BaseEngine,
    Opened,
    Options,
)
from fastbts.engine.backends.onnxruntime_cuda import NO_WAIT, CudaSession
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import call_body
from fastbts.engine.precision import network_in
from fastbts.errors import DeviceError, EngineFileError
from fastbts.progress import check_cancelled

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CHECK_S = 0.1
"""How often a running call looks whether it is cancelled."""
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
        about = {
            "backend_version": self.package().__version__,
            "precision": precision,
            "n_threads": options.n_threads,
        }
        return Opened(self._sessions(onnx_bytes, options._replace(precision=precision)), about)

    def _sessions(self, onnx_bytes: bytes, options: Options) -> Callable[[], Any]:
        """What gives a session to each call at a time; the first is loaded now."""
        new = partial(self._session, onnx_bytes, options)
        if options.device == "cpu":
            session = new({})
            return lambda: session  # it serves several calls at once
        check_provider(self.package(), "cuda")
        index, tf32 = int(options.device.removeprefix("cuda:")), options.precision != "fp32"
        ready = [CudaSession(new, index, tf32=tf32)]

        def session_for_a_call() -> CudaSession:
            try:
                return ready.pop()
            except IndexError:
                return CudaSession(new, index, tf32=tf32)

        return session_for_a_call

    def _run(self, call: Any, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        session = call.session if isinstance(call, CudaSession) else call
        binding = session.io_binding()
        binding.bind_cpu_input("volume", tensor)
        if text is not None:
            binding.bind_cpu_input("text", text)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        _run_in_thread(session, binding, self.package().RunOptions())

    def _enqueue(
        self, call: Any, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        options = self.package().RunOptions()
        options.add_run_config_entry(*NO_WAIT)
        call.begin(stream)
        _run_in_thread(call.session, call.bind(tensor, text, logits), options)
        call.end(stream)

    @classmethod
    def build(
        cls, file: EngineFile, precision: str, tensors: Sequence[Floats], max_batch: int = 1
    ) -> dict[str, bytes]:
        """No payload besides the ONNX, but checks that ONNX Runtime loads it."""
        with cls.reported(EngineFileError, f"{file.path}: {cls.backend} cannot load the network"):
            cls._session(network_in(file, precision), Options("cpu", "fp32", 1, 1), {})
        return {}

    @classmethod
    def capabilities(cls) -> str:
        """Version and execution providers."""
        ort = cls.package()
        providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
        return f"{ort.__version__} with {', '.join(providers)}: {', '.join(cls.row().precisions)}"

    @classmethod
    def _session(cls, onnx_bytes: bytes, wanted: Options, settings: dict[str, str]) -> Any:
        ort, kind = cls.package(), device_kind(wanted.device)
        if (kind, wanted.precision) == ("cpu", "tf32"):
            raise DeviceError(
                "precision 'tf32': only GPUs compute in it; use device='cuda' or precision='fp32'"
            )
        check_provider(ort, kind)
        provider = PROVIDERS[kind]
        options = ort.SessionOptions()
        # 0 for all. Each call also works in the thread of its caller.
        options.intra_op_num_threads = -(-wanted.n_threads // wanted.parallel)
        options.log_severity_level = FATAL_ONLY
        session = ort.InferenceSession(onnx_bytes, options, providers=[(provider, settings)])
        if session.get_providers()[0] != provider:  # ONNX Runtime falls back to the CPU silently
            raise DeviceError(
                f"device {wanted.device!r}: ONNX Runtime could not start {provider}; check that "
                "`nvidia-smi` lists a GPU"
            )
        return session


def check_provider(ort: Any, kind: str) -> None:
    """Raises DeviceError if this ONNX Runtime has nothing that runs on that kind of device."""
    if PROVIDERS[kind] not in ort.get_available_providers():
        raise DeviceError(
            f"device {kind!r}: this ONNX Runtime has no {PROVIDERS[kind]}; install it with: "
            "pip install onnxruntime-gpu cuda-bindings"
        )


def _run_in_thread(session: Any, binding: Any, options: Any) -> None:
    """Runs a session in another thread, so that this one can handle Ctrl-C."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.run_with_iobinding, binding, options)
        try:
            while running not in wait([running], CHECK_S).done:
                check_cancelled()
            running.result()
        except BaseException:
            options.terminate = True  # after the layer that runs now
            raise
