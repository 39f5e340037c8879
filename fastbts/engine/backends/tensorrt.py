"""Runs plans of TensorRT (10.10 or later, 11) and TensorRT-RTX, which share one Python API.

**Nothing here beyond the check for a device has run on a GPU**, and nothing has run with the full
TensorRT. Tests check every name that this module uses against the real bindings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from fastbts.device.runtime import Buffer, Runtime
from fastbts.engine.backends.base import BaseEngine, Floats, Opened, Options, stored_precision
from fastbts.engine.backends.tensorrt_plan import (
    MAX_SIDE,
    Log,
    build_plan,
    checked_record,
    load_plugins,
    new_log,
    rebuild_message,
)
from fastbts.engine.file import EngineFile
from fastbts.errors import DeviceError


class TensorRTEngine(BaseEngine["_Execution"]):
    """Runs a plan on a CUDA device, in the precision that it was built in."""

    backend = "tensorrt"
    takes_plugins: ClassVar[bool] = True
    max_side = MAX_SIDE

    def _open(self, options: Options) -> Opened[_Execution]:
        record = checked_record(self.file, self.backend)
        if options.precision not in ("auto", record["precision"]):
            raise DeviceError(
                f"precision {options.precision!r}: this plan computes in {record['precision']}; "
                "use precision='auto'"
            )
        trt = self.package()
        cuda, log = Runtime(), new_log(trt)
        runtime = trt.Runtime(log)
        here = f"{trt.__version__} on compute capability {cuda.compute_capability()}"
        if record["version"] != trt.__version__:
            raise DeviceError(rebuild_message(self.file, record, here))
        if record["plugins"]:
            load_plugins(runtime, log)
        engine = runtime.deserialize_cuda_engine(bytes(self.file.payloads["engine.plan"]))
        if engine is None:
            raise DeviceError(rebuild_message(self.file, record, here))
        about = {
            "backend_version": trt.__version__,
            "precision": record["precision"],
            "plugins": record["plugins"],
        }
        return Opened(partial(_Execution, self.file.path, cuda, runtime, engine, log), about)

    def _run(self, call: _Execution, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        for b in range(len(tensor)):  # a plan takes one case at a time
            inputs = {"volume": tensor[b : b + 1]} | ({} if text is None else {"text": text})
            call.run(inputs, logits[b : b + 1])

    def _free(self, call: _Execution) -> None:
        call.close()

    @classmethod
    def build(cls, file: EngineFile, precision: str, tensors: Sequence[Floats]) -> dict[str, bytes]:
        """The plan, and the record of what built it; see `BaseEngine.build`."""
        stored, trt = stored_precision(file, precision), cls.package()
        plan = build_plan(trt, file, cls.backend, with_plugins=cls.takes_plugins)
        record = {
            "backend": cls.backend,
            "version": trt.__version__,
            "precision": stored,
            "plugins": plan.plugins,
        }
        return {"engine.plan": plan.content, "engine.json": json.dumps(record).encode()}

    @classmethod
    def capabilities(cls) -> str:
        """Version; a plan is built without a GPU, and run with one."""
        return f"{cls.package().__version__}: builds plans; running them needs a CUDA device"


class TensorRTRTXEngine(TensorRTEngine):
    """The same for TensorRT-RTX, whose parser ends the process where a network has plugins."""

    backend = "tensorrt-rtx"
    takes_plugins = False


class _Execution:
    """What one call at a time needs: context, CUDA stream, device memory, graph of the last shape.

    Raises:
        DeviceError: TensorRT cannot create the context.
    """

    def __init__(self, path: str, cuda: Runtime, runtime: Any, engine: Any, log: Log) -> None:
        self._runtime = runtime  # has to outlive the engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"{path}: no execution context: {' '.join(log.lines[-3:])}")
        self._cuda, self._stream = cuda, cuda("cudaStreamCreate")
        self._buffers = {name: Buffer(cuda) for name in ("volume", "text", "logits")}
        self._shapes: tuple[tuple[int, ...], ...] = ()  # of the last run
        self._graph: Any = None

    def run(self, inputs: dict[str, Floats], logits: Floats) -> None:
        """Uploads, computes, downloads, and waits."""
        self._place(inputs, logits)
        for name, array in inputs.items():
            self._cuda.upload(array, self._buffers[name].address, self._stream)
        self._compute(tuple(array.shape for array in inputs.values()))
        self._cuda.download(self._buffers["logits"].address, logits, self._stream)
        self._cuda("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Frees graph, memory and stream."""
        self._drop_graph()
        for buffer in self._buffers.values():
            buffer.free()
        self._cuda("cudaStreamDestroy", self._stream)

    def _place(self, inputs: dict[str, Floats], logits: Floats) -> None:
        for name, array in {**inputs, "logits": logits}.items():
            if self._buffers[name].fit(array.nbytes):
                self._drop_graph()
            if name in inputs and not self._context.set_input_shape(name, array.shape):
                raise DeviceError(f"{name} of shape {array.shape}: refused by the plan")
            self._context.set_tensor_address(name, self._buffers[name].address)

    def _compute(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Runs a new shape directly, as TensorRT prepares in that run; records the second run of a
        shape as a CUDA graph; replays the graph after that."""
        if shapes != self._shapes:
            self._drop_graph()
        elif self._graph is None:
            self._record()
        if self._graph is not None:
            self._cuda("cudaGraphLaunch", self._graph, self._stream)
        else:
            self._enqueue()
        self._shapes = shapes

    def _record(self) -> None:
        mode = self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda("cudaStreamBeginCapture", self._stream, mode)
        self._enqueue()
        recorded = self._cuda("cudaStreamEndCapture", self._stream)
        self._graph = self._cuda("cudaGraphInstantiate", recorded, 0)
        self._cuda("cudaGraphDestroy", recorded)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise DeviceError(
                "TensorRT could not run the network; the log of `fastbts` has its reason"
            )

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda("cudaGraphExecDestroy", self._graph)
        self._graph, self._shapes = None, ()
