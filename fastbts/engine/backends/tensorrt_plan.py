"""Builds TensorRT plans, with their record and the plugins that they may call.

TensorRT-RTX builds without a GPU, and the tests do so.

The nodes `SemanticBridge` and `SemanticAttention` run in our kernels (plugins) with TensorRT where
`csrc/tensorrt` was built, else in the bodies that the ONNX has for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastbts import _C
from fastbts.engine.backends.base import open_network
from fastbts.engine.backends.tensorrt_log import Log, new_log, reason
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import drop_bodies
from fastbts.errors import DeviceError, EngineFileError
from fastbts.spec import EngineSpec

DOMAIN = "fastbts"
"""ONNX domain of the nodes that the plugins compute, and namespace of the plugins."""
PLUGIN_NODES = ("SemanticBridge", "SemanticAttention")
"""Nodes of that domain that the plugins compute."""
PLUGINS = "libfastbts_tensorrt.so"
NO_PLUGINS = (
    "build fastbts where nvcc and NvInfer.h are, with FASTBTS_CUDA=ON and FASTBTS_TENSORRT=ON"
)
MAX_SIDE = 256
"""Largest tensor side in voxels that a plan can take: larger than any head at 1 mm."""
RECORD = {"backend": str, "version": str, "precision": str, "plugins": bool}
"""Fields of `engine.json`."""


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        content: The serialised plan.
        log: What the builder reported: every layer with its types, device memory.
        plugins: Whether the plan calls the plugins of `csrc/tensorrt`, and needs them to run.
    """

    content: bytes
    log: str
    plugins: bool


def build_plan(trt: Any, file: EngineFile, backend: str, *, with_plugins: bool) -> Plan:
    """Compiles the ONNX for batch 1, and sides that are multiples of the stride up to `MAX_SIDE`.

    Args:
        trt: The package of TensorRT or TensorRT-RTX.
        file: The network.
        backend: Name for messages.
        with_plugins: Whether to use the plugins, if fastbts was built with them.
    Raises:
        DeviceError: The plugins cannot be loaded, or the build failed.
        EngineFileError: The parser refuses the ONNX.
    """
    log = new_log(trt, n_kept=None)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    who = f"{file.path}: {backend} {trt.__version__}"
    parser = trt.OnnxParser(network, log)
    content = _parsable(file, with_plugins and load_plugins(builder, log))
    if not parser.parse(content):
        wrong = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineFileError(f"{who} cannot parse the network: {wrong}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, file.spec))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(f"{who} cannot build the network: {' '.join(list(log.lines)[-5:])}")
    return Plan(bytes(memoryview(plan)), "\n".join(log.lines), _calls_plugins(trt, network))


def _parsable(file: EngineFile, plugins: bool) -> bytes:
    """The ONNX as the parser should see it."""
    # A body for other backends, which a parser may take for the standard node of the same name.
    bodies = ["InstanceNormalization"]
    if plugins:
        # Which of body and plugin a parser prefers changed twice (10.7, 10.15): give it one only.
        bodies += PLUGIN_NODES
    return drop_bodies(open_network(file), bodies)


def _profile(builder: Any, spec: EngineSpec) -> Any:
    profile = builder.create_optimization_profile()
    most = MAX_SIDE // spec.stride * spec.stride
    shapes = ((spec.stride,) * 3, spec.window, (most,) * 3)
    profile.set_shape("volume", *((1, len(spec.modalities), *sides) for sides in shapes))
    return profile


def _calls_plugins(trt: Any, network: Any) -> bool:
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return any(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)


def checked_record(file: EngineFile, backend: str) -> dict[str, Any]:
    """The record of the file's plan, once it is clear that the plan can be run by this backend.

    Raises:
        DeviceError: There is no plan, another backend built it, or it needs missing plugins.
        EngineFileError: The record is missing or damaged.
    """
    rebuild = _rebuild_command(file, backend)
    if "engine.plan" not in file.payloads:
        raise DeviceError(f"{file.path}: holds no TensorRT plan; {rebuild}")
    record = _read_record(file, backend)
    if record["backend"] != backend:
        raise DeviceError(
            f"{file.path}: its plan was built by {record['backend']}, not by {backend}; {rebuild}"
        )
    if record["plugins"] and plugin_library() is None:
        raise DeviceError(
            f"{file.path}: its plan calls the plugins of fastbts, which this installation lacks; "
            f"{NO_PLUGINS}, or {rebuild}"
        )
    return record


def _read_record(file: EngineFile, backend: str) -> dict[str, Any]:
    try:
        record = json.loads(bytes(file.payloads["engine.json"]))
        if all(isinstance(record[key], kind) for key, kind in RECORD.items()):
            return dict(record)
    except (KeyError, TypeError, ValueError):
        pass
    raise EngineFileError(
        f"{file.path}: no usable record of its plan (engine.json); "
        f"{_rebuild_command(file, backend)}"
    )


def rebuild_message(file: EngineFile, record: dict[str, Any], here: str) -> str:
    """Why a plan does not run on this machine, which has `here`."""
    return (
        f"{file.path}: the plan was built by {record['backend']} {record['version']}, this machine "
        f"has {here}, and a plan runs only on what it was built for; "
        f"{_rebuild_command(file, record['backend'])}"
    )


def _rebuild_command(file: EngineFile, backend: str) -> str:
    return f"run: fastbts build {file.path} -o OUT.fbts --backend {backend}"


def plugin_library() -> Path | None:
    """The library of `csrc/tensorrt`, next to the extension; None if fastbts was built without."""
    library = Path(str(_C.__file__)).with_name(PLUGINS)
    return library if library.is_file() else None


def load_plugins(owner: Any, log: Log) -> bool:
    """Registers the plugins with a builder or a runtime, which keeps them loaded.

    Returns:
        False where fastbts was built without plugins.
    Raises:
        DeviceError: TensorRT cannot load the library.
    """
    library = plugin_library()
    if library is None:
        return False
    registry = owner.get_plugin_registry()
    registry.load_library(str(library))
    if all(creator.plugin_namespace != DOMAIN for creator in registry.all_creators_recursive):
        raise DeviceError(
            f"{library}: TensorRT cannot load the plugins: {reason(log)}; {NO_PLUGINS}, or with "
            "FASTBTS_TENSORRT=OFF to do without them"
        )
    return True
