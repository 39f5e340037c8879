"""Builds TensorRT plans, with their record and the plugins that they may call.

TensorRT-RTX builds without a GPU, and the tests do so.

The nodes `SemanticBridge` and `SemanticAttention` run in our kernels (plugins) with TensorRT where
`csrc/tensorrt` was built, else in the bodies that the ONNX has for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastbts import _C
from fastbts.about import __version__
from fastbts.engine.backends.tensorrt_log import Log, collected, reason, shared_log
from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import drop_bodies
from fastbts.engine.precision import network_in
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
PLUGIN_VERSION = "1"
"""Of the plugins, as `csrc/tensorrt/plugin.cpp` has it."""
MAX_SIDE = 256
"""Largest tensor side in voxels that a plan can take: larger than any head at 1 mm."""
RECORD = {
    "backend": str,
    "version": str,
    "fastbts": str,
    "precision": str,
    "max_batch": int,
    "compute_capability": str | None,
    "plugins": bool,
    "plugin_version": str,
    "ranges": dict,
}
"""Fields of `engine.json`."""
TIMINGS = "engine.timing"
"""Payload: what TensorRT timed in this build, so that the next one need not."""


@dataclass(frozen=True)
class Wanted:
    """What to build."""

    backend: str
    precision: str = "fp32"
    max_batch: int = 1
    """Most windows that one call takes."""
    ranges: Mapping[str, float] = field(default_factory=dict)
    """For int8; see `to_int8`."""
    portable: bool = True
    """Whether it is built for any GPU, by TensorRT-RTX: without plugins, and nothing is timed."""


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        content: The serialised plan.
        log: What the builder reported: every layer with its types, device memory.
        plugins: Whether the plan calls the plugins of `csrc/tensorrt`, and needs them to run.
        timings: What TensorRT timed; None where it timed nothing.
    """

    content: bytes
    log: str
    plugins: bool
    timings: bytes | None = None


def build_plan(trt: Any, file: EngineFile, wanted: Wanted) -> Plan:
    """Compiles the network for sides that are multiples of the stride, up to `MAX_SIDE`.

    Args:
        trt: The package of TensorRT or TensorRT-RTX.
        file: The network, and the timings of an earlier build if it has them.
        wanted: What to build.
    Raises:
        DeviceError: The plugins cannot be loaded, or the build failed.
        EngineFileError: The parser refuses the ONNX.
    """
    log = shared_log(trt)
    with collected(log) as lines:
        plan = _built(trt, file, wanted, log, lines)
    return replace(plan, log="\n".join(lines))


def _built(trt: Any, file: EngineFile, wanted: Wanted, log: Log, lines: list[str]) -> Plan:
    """The plan, without its log."""
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    who = f"{file.path}: {wanted.backend} {trt.__version__}"
    parser = trt.OnnxParser(network, log)
    # The plugins compute in float32 and float16.
    with_plugins = not wanted.portable and wanted.precision != "bf16"
    content = _parsable(file, wanted, with_plugins and load_plugins(builder, log))
    if not parser.parse(content):
        wrong = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineFileError(f"{who} cannot parse the network: {wrong}")
    config = _config(trt, builder, file, wanted)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(f"{who} cannot build the network: {' '.join(lines[-5:])}")
    timings = None if wanted.portable else bytes(memoryview(config.get_timing_cache().serialize()))
    return Plan(bytes(memoryview(plan)), "", _calls_plugins(trt, network), timings)


def _config(trt: Any, builder: Any, file: EngineFile, wanted: Wanted) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, file.spec, wanted.max_batch))
    if wanted.precision == "fp32":
        # TF32 has 10 bits of mantissa, less than the fp32 that was asked for; it is on by default.
        config.clear_flag(trt.BuilderFlag.TF32)
    if wanted.portable:
        # TensorRT-RTX records CUDA graphs only of contexts whose memory is ours.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    else:
        cache = config.create_timing_cache(bytes(file.payloads.get(TIMINGS, b"")))
        config.set_timing_cache(cache, False)  # refuses the timings of another GPU or version
    return config


def _parsable(file: EngineFile, wanted: Wanted, plugins: bool) -> bytes:
    """The ONNX as the parser should see it."""
    # A body for other backends, which a parser may take for the standard node of the same name.
    bodies = ["InstanceNormalization"]
    if plugins:
        # Which of body and plugin a parser prefers changed twice (10.7, 10.15): give it one only.
        bodies += PLUGIN_NODES
    return drop_bodies(network_in(file, wanted.precision, wanted.ranges), bodies)


def _profile(builder: Any, spec: EngineSpec, max_batch: int) -> Any:
    profile = builder.create_optimization_profile()
    least, most = spec.least_side, MAX_SIDE // spec.stride * spec.stride
    sides = ((least,) * 3, spec.window, (most,) * 3)
    batches = (1, max_batch, max_batch)
    shapes = zip(batches, sides, strict=True)
    profile.set_shape("volume", *((batch, len(spec.modalities), *size) for batch, size in shapes))
    return profile


def _calls_plugins(trt: Any, network: Any) -> bool:
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return any(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)


def make_record(trt: Any, wanted: Wanted, plan: Plan, compute_capability: str | None) -> bytes:
    """The record of a plan, `engine.json`."""
    record = {
        "backend": wanted.backend,
        "version": trt.__version__,
        "fastbts": __version__,
        "precision": wanted.precision,
        "max_batch": wanted.max_batch,
        "compute_capability": compute_capability,
        "plugins": plan.plugins,
        "plugin_version": PLUGIN_VERSION,
        "ranges": dict(wanted.ranges),
    }
    return json.dumps(record).encode()


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
    if record["plugins"] and record["plugin_version"] != PLUGIN_VERSION:
        raise DeviceError(
            f"{file.path}: its plan calls version {record['plugin_version']} of the plugins of "
            f"fastbts, this installation has version {PLUGIN_VERSION}; {rebuild}"
        )
    return record


def check_machine(
    file: EngineFile, record: dict[str, Any], version: str, compute_capability: str
) -> None:
    """Raises DeviceError if a plan was built by another version or for another kind of GPU."""
    # None: a portable plan.
    fits = record["compute_capability"] in (None, compute_capability)
    if record["version"] != version or not fits:
        here = f"{version} on compute capability {compute_capability}"
        raise DeviceError(rebuild_message(file, record, here))


def _read_record(file: EngineFile, backend: str) -> dict[str, Any]:
    try:
        record = json.loads(bytes(file.payloads["engine.json"]))
        typed = all(isinstance(record[key], kind) for key, kind in RECORD.items())
        if typed and record["max_batch"] > 0:
            return dict(record)
    except (KeyError, TypeError, ValueError):
        pass
    raise EngineFileError(
        f"{file.path}: no usable record of its plan (engine.json); "
        f"{_rebuild_command(file, backend)}"
    )


def rebuild_message(file: EngineFile, record: dict[str, Any], here: str) -> str:
    """Why a plan does not run on this machine, which has `here`."""
    gpu = record["compute_capability"]
    built_for = f" for compute capability {gpu}" if gpu else ""
    return (
        f"{file.path}: the plan was built by {record['backend']} {record['version']}{built_for}, "
        f"this machine has {here}, and a plan runs only on what it was built for; "
        f"{_rebuild_command(file, record['backend'])}"
    )


def _rebuild_command(file: EngineFile, backend: str) -> str:
    precision = file.manifest.get("build", {}).get("precision", "fp32")
    option = "" if precision == "fp32" else f" --precision {precision}"
    return f"run: fastbts build {file.path} -o OUT.fbts --backend {backend}{option}"


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
    with collected(log) as lines:
        registry.load_library(str(library))
    if all(creator.plugin_namespace != DOMAIN for creator in registry.all_creators_recursive):
        raise DeviceError(
            f"{library}: TensorRT cannot load the plugins: {reason(lines)}; {NO_PLUGINS}, or with "
            "FASTBTS_TENSORRT=OFF to do without them"
        )
    return True
