"""What one call of a TensorRT engine at a time needs: contexts, memory, graphs, staging."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np

from fastbts.device.arrays import DeviceArray
from fastbts.device.cuda import CudaWorkspace
from fastbts.device.runtime import Block, Runtime, Stream, free_with
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.tensorrt_log import Log, collected, reason
from fastbts.errors import DeviceError

N_CONTEXTS = 8
"""Contexts of a slot. Each keeps a shape with its addresses prepared, and the graph of its run."""
N_CAPTURES = 3
"""Captures of a context that may fail; memory that Python frees meanwhile is enough for it."""

logger = logging.getLogger("fastbts")


@dataclass(frozen=True, eq=False)
class LoadedPlan:
    """A loaded plan."""

    path: str
    """The engine's file, for messages."""
    cuda: Runtime
    index: int
    """Number of the device that it was loaded on."""
    runtime: Any
    """TensorRT's runtime, which has to outlive the engine."""
    engine: Any
    log: Log
    settings: Any
    """What contexts are made with, see `context_settings`; has to outlive them."""
    own_graphs: bool
    """Whether TensorRT itself records and replays CUDA graphs."""


def context_settings(trt: Any, engine: Any, *, compiles: bool) -> Any:
    """Lets us manage the memory of contexts: TensorRT would allocate for the largest shape.

    Args:
        trt: The package of TensorRT or TensorRT-RTX.
        engine: A loaded engine.
        compiles: Whether it compiles kernels when it runs, as TensorRT-RTX does: then all contexts
            share the kernels, and it captures its graphs itself, once a shape is compiled.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not compiles:
        return strategy
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(strategy)
    settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    settings.set_runtime_cache(settings.create_runtime_cache())
    return settings


class Binding(NamedTuple):
    """The tensors of a run: each name with its shape and address."""

    tensors: tuple[tuple[str, tuple[int, ...], int], ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes alone."""
        return tuple(shape for _, shape, _ in self.tensors)


@dataclass(eq=False)
class Prepared:
    """A context that is set up for a binding."""

    context: Any
    n_bytes: int
    """Memory for its activations."""
    memory: int = 0
    """Address of the memory that it has."""
    has_run: bool = False
    """TensorRT prepares in the first run of a shape, which no graph can record."""
    graph: Graph | None = None
    n_failed: int = 0
    """Captures that failed."""


class Graph:
    """An executable CUDA graph, destroyed when nothing refers to it."""

    def __init__(self, cuda: Runtime, index: int, recorded: Any) -> None:
        self.handle = cuda("cudaGraphInstantiate", recorded, 0)
        free_with(self, cuda, index, "cudaGraphExecDestroy", self.handle)


class Slot:
    """Runs a plan for one call at a time, on any stream.

    A call on a stream returns before its work is done, which uses the memory of the slot. So the
    next one must be on the same stream, or come when the work is done: see `fits`.

    Raises:
        DeviceError: Too little memory, or TensorRT cannot create a context.
    """

    def __init__(self, plan: LoadedPlan) -> None:
        self._plan, self._stream = plan, Stream(plan.cuda, plan.index)
        with plan.cuda.on(plan.index):
            flag = plan.cuda.api.cudaEventDisableTiming
            self._done = plan.cuda("cudaEventCreateWithFlags", flag)
        self._last: int | None = None  # stream of the last call
        self._contexts = Contexts(plan, self._stream)
        self._workspace: CudaWorkspace | None = None
        self._text: Floats | None = None  # what is in `_text_memory`
        self._text_memory: Block | None = None
        self._free = finalize(self, _finish, os.getpid(), plan, self._done, self._contexts)
        self._free.atexit = False

    def fits(self, stream: int | None) -> bool:
        """Whether no work is left of another stream than this."""
        if self._last in (None, stream):
            return True
        status, *_ = self._plan.cuda.api.cudaEventQuery(self._done)
        return bool(status == self._plan.cuda.api.cudaError_t.cudaSuccess)

    def run(self, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        """Uploads, computes, downloads, and waits; for arrays of the host."""
        if self._workspace is None:
            self._workspace = CudaWorkspace(self._plan.index)
        there = self._workspace.put(tensor, "volume")
        result = self._workspace.kept("logits", logits.shape, np.float32)
        self.enqueue(there, text, result, self._workspace.stream or 0)
        (logits[:],) = self._workspace.get(result)

    def enqueue(
        self, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        """Enqueues the run on a stream of the device, and returns."""
        cuda = self._plan.cuda
        with cuda.on(self._plan.index):
            self._check_stream(stream)
            self._last = stream
            try:
                self._contexts.run(self._binding(tensor, text, logits, stream), stream)
            finally:  # also a run that fails may have enqueued something
                cuda("cudaEventRecord", self._done, stream)

    def close(self) -> None:
        """Waits for the last call, and frees contexts, graphs and memory."""
        self._free()
        self._workspace = self._text_memory = self._text = None

    def _check_stream(self, stream: int) -> None:
        cuda = self._plan.cuda
        idle = cuda.api.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone
        if cuda("cudaStreamIsCapturing", stream) != idle:
            raise DeviceError(
                f"{self._plan.path}: the stream is being captured; the engine records its own "
                "graphs, so end the capture before the call"
            )

    def _binding(
        self, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> Binding:
        tensors = [("volume", tensor.shape, tensor.address)]
        if text is not None:
            tensors.append(("text", text.shape, self._text_address(text, stream)))
        return Binding((*tensors, ("logits", logits.shape, logits.address)))

    def _text_address(self, text: Floats, stream: int) -> int:
        """Where the text is on the device; uploaded if it has changed."""
        if self._text_memory is None:
            self._text_memory = Block(self._plan.cuda, self._plan.index, text.nbytes)
        if self._text is None or not np.array_equal(self._text, text):
            self._text = text.copy()
            self._plan.cuda.upload(self._text, self._text_memory.address, stream)
        return self._text_memory.address


class Contexts:
    """Contexts for the last bindings, which share one block of memory, in the order of their use.

    A binding that comes for the first time takes over a context of its shapes, if one has no graph:
    a caller with new addresses in every call needs one context only.
    """

    def __init__(self, plan: LoadedPlan, stream: Stream) -> None:
        self._plan, self._stream = plan, stream  # of the captures
        self._kept: OrderedDict[Binding, Prepared] = OrderedDict()
        self._seen: deque[Binding] = deque(maxlen=2 * N_CONTEXTS)
        self._block: Block | None = None

    def run(self, binding: Binding, stream: int) -> None:
        """Enqueues a run: directly the first time, else as a graph."""
        prepared = self._prepared(binding)
        self._give_memory(prepared)
        if prepared.graph is None and prepared.has_run and not self._plan.own_graphs:
            self._record(prepared)
        if prepared.graph is not None:
            self._plan.cuda("cudaGraphLaunch", prepared.graph.handle, stream)
        else:
            run = partial(prepared.context.execute_async_v3, stream)
            self._asked("TensorRT could not run the network", run)
        prepared.has_run = True

    def clear(self) -> None:
        """Drops contexts, graphs and memory, which no work may use any more."""
        self._kept.clear()
        self._block = None

    def _prepared(self, binding: Binding) -> Prepared:
        """The context for a binding, now the last used one."""
        prepared = self._kept.pop(binding, None) or self._set_up(self._context(binding), binding)
        self._kept[binding] = prepared
        if binding not in self._seen:
            self._seen.append(binding)
        return prepared

    def _context(self, binding: Binding) -> Any:
        """A context to set up: one that is taken over, or a new one."""
        taken = None
        if binding not in self._seen:
            idle = (key for key, kept in self._kept.items() if kept.graph is None)
            taken = next((key for key in idle if key.shapes == binding.shapes), None)
        if taken is None and len(self._kept) >= N_CONTEXTS:
            taken = next(iter(self._kept))
        return self._new_context() if taken is None else self._kept.pop(taken).context

    def _new_context(self) -> Any:
        make = partial(self._plan.engine.create_execution_context, self._plan.settings)
        return self._asked(f"{self._plan.path}: no execution context", make)

    def _set_up(self, context: Any, binding: Binding) -> Prepared:
        for name, shape, address in binding.tensors:
            if name != "logits":
                set_shape = partial(context.set_input_shape, name, shape)
                self._asked(f"{name} of shape {shape}: refused by the plan", set_shape)
            context.set_tensor_address(name, address)
        return Prepared(context, int(context.update_device_memory_size_for_shapes()))

    def _asked(self, failed: str, ask: Callable[[], Any]) -> Any:
        """The answer of TensorRT.

        Raises:
            DeviceError: It is None or False, with what TensorRT logged.
        """
        with collected(self._plan.log) as lines:
            answer = ask()
        if answer is None or answer is False:
            raise DeviceError(f"{failed}: {reason(lines)}")
        return answer

    def _give_memory(self, prepared: Prepared) -> None:
        """Gives a context the block that all share; a larger one if it needs more."""
        if self._block is None or self._block.n_bytes < prepared.n_bytes:
            for kept in self._kept.values():
                kept.graph = None  # it uses the old block
            self._block = None  # first, so that there never are both
            self._block = Block(self._plan.cuda, self._plan.index, prepared.n_bytes)
        if prepared.memory != self._block.address:
            prepared.context.set_device_memory(self._block.address, self._block.n_bytes)
            prepared.memory, prepared.has_run = self._block.address, False

    def _record(self, prepared: Prepared) -> None:
        """Records the run as a graph; without one the run is enqueued directly."""
        if prepared.n_failed >= N_CAPTURES:
            return
        try:
            prepared.graph = self._captured(prepared.context)
        except DeviceError as error:
            prepared.n_failed += 1
            # As text: whoever keeps the record must not keep the frames of the error.
            logger.warning("%s: runs without a CUDA graph: %s", self._plan.path, str(error))

    def _captured(self, context: Any) -> Graph:
        cuda, stream, recorded = self._plan.cuda, self._stream.handle, None
        mode = cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cuda("cudaStreamBeginCapture", stream, mode)
        try:
            try:
                with collected(self._plan.log) as lines:
                    done = context.execute_async_v3(stream)
            finally:  # or the stream would go on capturing
                status, recorded = cuda.api.cudaStreamEndCapture(stream)
            if not done or status != cuda.api.cudaError_t.cudaSuccess:
                raise DeviceError(f"the capture failed, {status.name}: {reason(lines)}")
            return Graph(cuda, self._plan.index, recorded)
        finally:
            if recorded is not None:
                cuda("cudaGraphDestroy", recorded)


def _finish(process: int, plan: LoadedPlan, done: Any, contexts: Contexts) -> None:
    """Frees what a slot had, after its last work."""
    if os.getpid() != process:
        return  # a forked process cannot use what its parent made
    with suppress(DeviceError), plan.cuda.on(plan.index):
        with suppress(DeviceError):
            plan.cuda("cudaEventSynchronize", done)
        contexts.clear()
        plan.cuda("cudaEventDestroy", done)
