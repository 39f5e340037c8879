"""TensorRT (10.10 or later, 11) and TensorRT-RTX: building a plan from an engine file's ONNX, and running it.

Both packages have the same Python API, so one module serves them. Building needs no GPU with TensorRT-RTX, and the tests do it.
**Running has never been tried on a GPU**: of `TensorRTEngine` and `cuda.py` nothing beyond the check for a device has ever run,
nor has anything with the full TensorRT; the tests hold every name that both modules use against the real bindings.

Bridge and attention, nodes of the ONNX domain `fastbts`, run in our kernels where `csrc/tensorrt` was built and the backend is TensorRT, else in
their bodies. TensorRT-RTX always takes the bodies: it has no plugins of users, and a parser that finds one ends the process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fastbts import _C
from fastbts.engine.backends.base import (
    Floats,
    Pool,
    check_arguments,
    describe,
    open_text,
    stored_precision,
)
from fastbts.engine.backends.cuda import Buffer, Cuda
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import drop_bodies, drop_default
from fastbts.errors import DeviceError, EngineFileError, OptionsError
from fastbts.spec import EngineSpec

PACKAGES = {
    "tensorrt": ("tensorrt", "pip install 'fastbts[tensorrt]'"),
    "tensorrt-rtx": ("tensorrt_rtx_bindings", "pip install 'fastbts[tensorrt-rtx]'"),
}
DOMAIN = "fastbts"
"""Of the ONNX nodes that the plugins are for, and so the plugins' namespace."""
PLUGIN_NODES = ("SemanticBridge", "SemanticAttention")
"""Nodes of that domain that the plugins compute."""
PLUGINS = "libfastbts_tensorrt.so"
NO_PLUGINS = (
    "build fastbts where nvcc and NvInfer.h are, with FASTBTS_CUDA=ON and FASTBTS_TENSORRT=ON"
)
MAX_SIDE = 256
"""Largest tensor side in voxels that a plan serves: at 1 mm, more than any head's box."""


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        content: The serialised plan.
        log: What the builder said: every layer with its types, device memory.
        plugins: Whether it calls the plugins of `csrc/tensorrt`, which then must be there to run it.
    """

    content: bytes
    log: str
    plugins: bool


def build(
    onnx_bytes: bytes, spec: EngineSpec, precision: str = "auto", *, backend: str = "tensorrt"
) -> dict[str, bytes]:
    """What an engine file for this backend holds: the ONNX, the plan, and the plan's record.

    Args:
        onnx_bytes: The network; its own types are the precision (`training.export --precision`).
        spec: What the network takes and gives.
        precision: "fp32" or "fp16" to insist on what the ONNX must be; "auto" for what it is.
        backend: "tensorrt" or "tensorrt-rtx".
    Raises:
        DeviceError: The package is not installed, the build failed, or the ONNX has another precision.
        EngineFileError: The parser refuses the ONNX.
    """
    stored = stored_precision(onnx_bytes, precision)
    plan = build_plan(onnx_bytes, spec, backend)
    record = {
        "backend": backend,
        "version": _package(backend).__version__,
        "precision": stored,
        "plugins": plan.plugins,
    }
    return {
        "model.onnx": onnx_bytes,
        "engine.plan": plan.content,
        "engine.json": json.dumps(record).encode(),
    }


def build_plan(onnx_bytes: bytes, spec: EngineSpec, backend: str) -> Plan:
    """Compiles the ONNX for batch 1 and every box whose sides are multiples of the stride up to `MAX_SIDE`.

    Raises:
        DeviceError: The package is not installed, it cannot load the plugins, or the build failed.
        EngineFileError: The parser refuses the ONNX.
    """
    trt = _package(backend)
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    # With its default in the file the parser would take "text" for a constant.
    content = drop_default(onnx_bytes, "text")
    # A body for other backends, which a parser that looks for bodies by the name alone would take for the standard op.
    content = drop_bodies(content, ["InstanceNormalization"])
    if backend == "tensorrt" and load_plugins(builder, log):
        # Which of body and plugin a parser prefers has changed twice (10.7, 10.15): so it sees one of them only.
        content = drop_bodies(content, PLUGIN_NODES)
    if not parser.parse(content):
        wrong = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineFileError(
            f"{spec.name}: {backend} {trt.__version__} cannot parse the network: {wrong}"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, spec))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(
            f"{spec.name}: {backend} {trt.__version__} cannot build the network: {' '.join(log.lines[-5:])}"
        )
    plugins = any(
        network.get_layer(i).type == trt.LayerType.PLUGIN_V3 for i in range(network.num_layers)
    )
    return Plan(bytes(memoryview(plan)), "\n".join(log.lines), plugins)


class TensorRTEngine:
    """Runs a plan on a CUDA device; `infer` is safe to call from several threads at once.

    Args:
        file: The verified engine file, with the payloads of `build`.
        backend: "tensorrt" or "tensorrt-rtx": the one that the plan was built by.
        precision: "auto", or what the plan was built with.
    Raises:
        DeviceError: No package, no device, no plugins for a plan that calls them, another precision, or a plan made for another
            version or device.
        EngineFileError: The plan's record is missing or damaged.
    """

    def __init__(self, file: EngineFile, backend: str, *, precision: str = "auto") -> None:
        record = _record(file, backend)
        trt = _package(backend)
        if precision not in ("auto", record["precision"]):
            raise DeviceError(
                f"precision {precision!r}: this plan computes in {record['precision']}; use precision='auto'"
            )
        self.file, self.spec, self.text = file, file.spec, open_text(file)[1]
        self._cuda = Cuda()
        self._log = _log(trt)
        self._runtime = trt.Runtime(self._log)
        here = f"{trt.__version__} on compute capability {self._cuda.compute_capability()}"
        if record["version"] != trt.__version__:
            raise DeviceError(_rebuild(file, record, here))
        if record["plugins"]:
            load_plugins(self._runtime, self._log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(
            bytes(file.payloads["engine.plan"])
        )
        if self._engine is None:
            raise DeviceError(_rebuild(file, record, here))
        self._slots = Pool(file, partial(_slot, file, self._cuda, self._engine, self._log))
        self.description = describe(
            file, backend=backend, backend_version=trt.__version__, device="cuda", precision=record["precision"],
            plugins=record["plugins"],
        )  # fmt: skip

    def infer(
        self, tensor: Floats, text: Floats | None = None, *, out: Floats | None = None
    ) -> Floats:
        """See `Engine.infer`; one tensor at a time, with sides up to `MAX_SIDE`."""
        tensor, table, logits = check_arguments(self.file, self.text, tensor, text, out)
        if max(tensor.shape[2:]) > MAX_SIDE:
            raise OptionsError(
                f"tensor of shape {tensor.shape}: this plan takes sides up to {MAX_SIDE}; use mode='sliding'"
            )
        with self._slots.lend() as slot:
            for b in range(len(tensor)):
                inputs = {"volume": tensor[b : b + 1]} | ({} if table is None else {"text": table})
                slot.run(inputs, logits[b : b + 1])
        return logits

    def close(self) -> None:
        """Frees the network and its device memory; calls still under way must have ended."""
        for slot in self._slots.close():
            slot.close()
        self._engine = None


class _Slot:
    """What one call at a time needs: a context, a stream, device memory, and the graph of the last shape."""

    def __init__(self, cuda: Cuda, context: Any) -> None:
        self._cuda, self._context = cuda, context
        self._stream = cuda("cudaStreamCreate")
        self._buffers = {name: Buffer(cuda) for name in ("volume", "text", "logits")}
        self._shapes: tuple[tuple[int, ...], ...] = ()  # of the run before
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
        self._forget()
        for buffer in self._buffers.values():
            buffer.free()
        self._cuda("cudaStreamDestroy", self._stream)

    def _place(self, inputs: dict[str, Floats], logits: Floats) -> None:
        for name, array in {**inputs, "logits": logits}.items():
            if self._buffers[name].fit(array.nbytes):
                self._forget()
            if name in inputs and not self._context.set_input_shape(name, array.shape):
                raise DeviceError(f"{name} of shape {array.shape}: refused by the plan")
            self._context.set_tensor_address(name, self._buffers[name].address)

    def _compute(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """The first run of a shape is plain, since TensorRT prepares in it; the second is recorded, later ones replay it."""
        if shapes != self._shapes:
            self._forget()
        elif self._graph is None:
            mode = self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            self._cuda("cudaStreamBeginCapture", self._stream, mode)
            self._enqueue()
            recorded = self._cuda("cudaStreamEndCapture", self._stream)
            self._graph = self._cuda("cudaGraphInstantiate", recorded, 0)
            self._cuda("cudaGraphDestroy", recorded)
        if self._graph is not None:
            self._cuda("cudaGraphLaunch", self._graph, self._stream)
        else:
            self._enqueue()
        self._shapes = shapes

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise DeviceError(
                "TensorRT could not run the network; the log of `fastbts` has its reason"
            )

    def _forget(self) -> None:
        if self._graph is not None:
            self._cuda("cudaGraphExecDestroy", self._graph)
        self._graph, self._shapes = None, ()


def _slot(file: EngineFile, cuda: Cuda, engine: Any, log: Any) -> _Slot:
    context = engine.create_execution_context()
    if context is None:
        raise DeviceError(f"{file.path}: no execution context: {' '.join(log.lines[-3:])}")
    return _Slot(cuda, context)


def _profile(builder: Any, spec: EngineSpec) -> Any:
    profile = builder.create_optimization_profile()
    head, most = (1, len(spec.modalities)), MAX_SIDE // spec.stride * spec.stride
    profile.set_shape(
        "volume", (*head, *(spec.stride,) * 3), (*head, *spec.window), (*head, *(most,) * 3)
    )
    return profile


def plan_backend(file: EngineFile) -> str:
    """Which of the two packages built the file's plan.

    Raises:
        EngineFileError: The plan's record is missing or damaged.
    """
    try:
        record = json.loads(bytes(file.payloads["engine.json"]))
        types = {"backend": str, "version": str, "precision": str, "plugins": bool}
        if record["backend"] in PACKAGES and all(
            isinstance(record[key], kind) for key, kind in types.items()
        ):
            return str(record["backend"])
    except (KeyError, TypeError, ValueError):
        pass
    raise EngineFileError(
        f"{file.path}: no usable record of its plan (engine.json); {_command(file, 'tensorrt')}"
    )


def plugin_library() -> Path | None:
    """The library of `csrc/tensorrt`, which lies beside the extension; None where fastbts was built without it."""
    library = Path(str(_C.__file__)).with_name(PLUGINS)
    return library if library.is_file() else None


def load_plugins(owner: Any, log: Any) -> bool:
    """Registers the plugins with a builder or a runtime, which keeps them loaded; False where fastbts was built without them.

    Raises:
        DeviceError: TensorRT cannot load the library that is there.
    """
    library = plugin_library()
    if library is None:
        return False
    registry = owner.get_plugin_registry()
    registry.load_library(str(library))
    if all(creator.plugin_namespace != DOMAIN for creator in registry.all_creators_recursive):
        reason = " ".join(line for line in log.lines if line.startswith("ERROR"))
        raise DeviceError(
            f"{library}: TensorRT cannot load the plugins: {reason}; {NO_PLUGINS}, or OFF to do without them"
        )
    return True


def _record(file: EngineFile, backend: str) -> dict[str, Any]:
    if "engine.plan" not in file.payloads:
        raise DeviceError(f"{file.path}: holds no TensorRT plan; {_command(file, backend)}")
    built_by = plan_backend(file)
    if built_by != backend:
        raise DeviceError(
            f"{file.path}: its plan was built by {built_by}, not by {backend}; {_command(file, backend)}"
        )
    record = dict(json.loads(bytes(file.payloads["engine.json"])))
    if record["plugins"] and plugin_library() is None:
        raise DeviceError(
            f"{file.path}: its plan calls the plugins of fastbts, which this installation lacks; {NO_PLUGINS}, or "
            f"{_command(file, backend)}"
        )
    return record


def _rebuild(file: EngineFile, record: dict[str, Any], here: str) -> str:
    return (
        f"{file.path}: the plan was built by {record['backend']} {record['version']}, this machine has {here}, and a plan runs "
        f"on what it was built for; {_command(file, record['backend'])}"
    )


def _command(file: EngineFile, backend: str) -> str:
    return f"run: fastbts build {file.path} -o OUT.fbts --backend {backend}"


def _package(backend: str) -> Any:
    name, command = PACKAGES[backend]
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: the package is there, a library of it is not
        raise DeviceError(
            f"{backend} is not installed ({error}); install it with: {command}"
        ) from error


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps what TensorRT says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(f"{severity.name}: {message}")

    return Log()
