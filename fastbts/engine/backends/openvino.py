"""OpenVINO, the CPU backend: compiles the engine file's ONNX in memory, for any spatial size."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import __version__
from fastbts.engine import model_cache
from fastbts.engine.auto_precision import Precision, choose
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import (
    BaseEngine,
    Opened,
    Options,
    baked_text,
    open_network,
)
from fastbts.engine.backends.openvino_nodes import exact_norms, register_nodes
from fastbts.engine.backends.openvino_pack import (
    as_tensor,
    packed,
    packing_of,
    without_packing,
)
from fastbts.engine.file import EngineFile
from fastbts.engine.fork import keep_in_children
from fastbts.errors import DeviceError, EngineFileError, OptionsError
from fastbts.ops import PackedLogits, Packing
from fastbts.progress import check_cancelled

INT8_PAYLOADS = ("openvino.xml", "openvino.bin")
"""The quantised network as OpenVINO IR: topology and weights."""
CONVERTER = "openvino.tools.ovc"
CHECK_MS = 100
"""How often a running request looks whether it is cancelled."""


class OpenVINOEngine(BaseEngine[Any]):
    """Runs an engine file on the CPU.

    Precision "auto": see `fastbts.engine.auto_precision`. "int8" needs a file that was built for
    it.
    """

    backend = "openvino"
    _packing: Packing | None
    serial = True  # requests beyond the streams would share intermediate results

    def _open(self, options: Options) -> Opened[Any]:
        ov = self.package()
        core, self._ov, self._n_threads = _core(), ov, options.n_threads
        precision, reason = _precision(core, self.file, options.precision)
        settings = _settings(core, precision, options.n_threads, options.parallel)
        model, memory = _compiled(ov, core, self.file, precision, settings)
        self._packing = packing_of(model, self.file)
        about = {
            "backend_version": _version(ov),
            "device_name": _cpu_name(core),
            "precision": precision,
            "precision_reason": reason,
            "n_threads": int(model.get_property("INFERENCE_NUM_THREADS")),
            "parallel": int(model.get_property("NUM_STREAMS")),
        }
        return Opened(partial(_request, model, memory), about)

    def _run(self, call: Any, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        # One case at a time: all threads work on one case anyway, and `CaseConv` has one case's
        # weights.
        for volume, result in zip(tensor, logits, strict=True):
            if self._packing is None:
                self._run_packed(call, volume, text, result)
                continue
            packing, size = self._packing, volume.shape[1:]
            out = np.empty(packing.shape(len(result), size), packing.logits_dtype)
            self._run_packed(call, packed(packing, volume, self._n_threads), text, out)
            PackedLogits(out, packing.patch).voxels(self._n_threads, out=result)

    def _run_packed(
        self, call: Any, tensor: NDArray[Any], text: Floats | None, logits: NDArray[Any]
    ) -> None:
        if text is not None:
            call.set_input_tensor(1, self._ov.Tensor(text, shared_memory=True))
        call.set_input_tensor(0, as_tensor(self._ov, tensor))
        call.set_output_tensor(as_tensor(self._ov, logits))
        _infer(call)

    @property
    def packing(self) -> Packing | None:
        """See `PackedEngine.packing`."""
        return self._packing

    @classmethod
    def build(
        cls, file: EngineFile, precision: str, tensors: Sequence[Floats], max_batch: int = 1
    ) -> dict[str, bytes]:
        """The quantised network for int8, else nothing; see `BaseEngine.build`."""
        if precision != "int8":
            return {}
        if not tensors:
            raise OptionsError(
                "precision 'int8': needs real cases to calibrate on; give some with --calibrate"
            )
        from fastbts.engine.backends.openvino_int8 import quantize

        core = _core()
        with cls.reported(EngineFileError, f"{file.path}: {cls.backend} cannot read the network"):
            network = _read(core, open_network(file))
        payloads = quantize(network, baked_text(file), tensors, partial(_logits, core))
        return dict(zip(INT8_PAYLOADS, payloads, strict=True))

    @classmethod
    def capabilities(cls) -> str:
        """Version, CPU, and the precisions that this CPU computes in."""
        ov = cls.package()
        core = _core()
        found = [p for p in cls.row().precisions if p != "bf16" or _has_bf16(core)]
        return f"{_version(ov)} on {_cpu_name(core)}: {', '.join(found)}"

    @classmethod
    def chosen(cls, file: EngineFile) -> Precision:
        """What precision "auto" stands for with a file on this machine.

        Raises:
            DeviceError: OpenVINO is not installed.
            OptionsError, EngineFileError: See `BaseEngine`.
        """
        return _precision(_core(), file, "auto")

    @classmethod
    def package(cls) -> Any:
        """The module `openvino`, without its model converter if we are the first to import it.

        Importing the converter starts a process that sends telemetry, which can delay the exit by
        three seconds; fastbts uses no network. It also takes longer than all the rest.
        `openvino.convert_model` still works: it imports the converter when it is called.

        Raises:
            DeviceError: OpenVINO is not installed.
        """
        first = cls.backend not in sys.modules
        if first:  # None makes the import system say "not found", which OpenVINO handles
            sys.modules[CONVERTER] = None  # type: ignore[assignment]
        try:
            openvino = super().package()
        finally:
            if first:
                sys.modules.pop(CONVERTER, None)  # another thread may have been first too
        if not hasattr(openvino, "convert_model"):
            openvino.convert_model = _convert_model
        return openvino


def activation_ranges(file: EngineFile) -> dict[str, float]:
    """Name of a tensor -> largest absolute value, as NNCF measured it for the file's int8 network.

    Raises:
        EngineFileError: The file's int8 network cannot be read.
    """
    ov, core, ranges = OpenVINOEngine.package(), _core(), dict[str, float]()
    failed = f"{file.path}: {INT8_PAYLOADS[0]} cannot be read"
    with OpenVINOEngine.reported(EngineFileError, failed):
        network = _network(ov, core, file, "int8")
    for op in network.get_ops():
        if op.get_type_name() == "FakeQuantize":
            highest = op.input_value(2).get_node()  # inputs: x, lowest, highest, ...
            names = op.input_value(0).get_names()
            ranges |= dict.fromkeys(names, float(highest.get_data().max()))
    return ranges


def _logits(core: Any, model: Any, precision: str, samples: Sequence[list[Floats]]) -> list[Floats]:
    """The logits of a model for each sample: image, and text where the network reads it."""
    request = core.compile_model(model, "CPU", _settings(core, precision, 0)).create_infer_request()
    return [request.infer(sample)[0].copy() for sample in samples]


def _infer(call: Any) -> None:
    """Runs a request; an exception in this thread, such as Ctrl-C, ends it after the layer."""
    call.start_async()
    try:
        while not call.wait_for(CHECK_MS):  # Python handles signals between two calls
            check_cancelled()
    except BaseException:
        call.cancel()
        with suppress(RuntimeError):  # that it was cancelled
            call.wait()  # it writes into our arrays
        raise


_CORE_LOCK = Lock()
_CORES: list[Any] = []


def _core() -> Any:
    """OpenVINO's core with our nodes: one for all engines, freed at the end of the process.

    Each core gives its thread a signal stack, as AMX needs a large one. If two cores are freed in
    the order they were made, OpenVINO 2026.4 leaves the thread with the first one's freed stack,
    and the next signal (such as Ctrl-C) ends the process with a segmentation fault.
    """
    with _CORE_LOCK:  # two threads may load their first engines at the same time
        if not _CORES:
            ov = OpenVINOEngine.package()
            # OpenVINO 2026.4 makes its table of types at the first use. Two threads that were the
            # first would wait for each other for ever: for that table, and for Python's lock.
            ov.Type.f32.to_dtype()
            core = ov.Core()
            register_nodes(core)
            keep_in_children(core)
            _CORES.append(core)
        return _CORES[0]


def _convert_model(*args: Any, **kwargs: Any) -> Any:
    return import_module(CONVERTER).convert_model(*args, **kwargs)


def _network(ov: Any, core: Any, file: EngineFile, precision: str) -> Any:
    if precision == "int8":
        xml, weights = (bytes(file.payloads[name]) for name in INT8_PAYLOADS)
        network = core.read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))
        _check_quantized(ov, file, network)
        return network
    network = _read(core, open_network(file))
    if precision == "fp32":
        exact_norms(network)
    return network


def _compiled(
    ov: Any, core: Any, file: EngineFile, precision: str, settings: dict[str, str]
) -> tuple[Any, Any]:
    """The compiled network, from the cache if it is there; and the memory that it needs."""
    key = _cache_key(ov, core, file, precision, settings)
    blob = model_cache.load(key)
    if blob is not None:
        with suppress(RuntimeError):  # OpenVINO does not take it: compile it again
            tensor = ov.Tensor(blob, shared_memory=True)
            return core.import_model(tensor, "CPU", settings), blob
    network = _network(ov, core, file, precision)
    network = without_packing(ov, network, file, settings["INFERENCE_PRECISION_HINT"])
    model = core.compile_model(network, "CPU", settings)
    with suppress(RuntimeError, ValueError):  # OpenVINO cannot export it, or lacks the memory
        model_cache.store(key, lambda: model.export_model().getbuffer())
    _trim_memory()
    return model, None


def _trim_memory() -> None:
    """Gives the memory that compiling needed back to the system: glibc keeps 30 MB of it."""
    with suppress(AttributeError, OSError, TypeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _request(model: Any, memory: Any) -> Any:
    """A new request. It keeps the memory of a network from the cache, as OpenVINO does not."""
    request = model.create_infer_request()
    request.memory = memory
    return request


def _cache_key(
    ov: Any, core: Any, file: EngineFile, precision: str, settings: dict[str, str]
) -> str:
    """All that the compiled network depends on."""
    cpu = [platform.machine(), _cpu_name(core)]
    cpu += sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return json.dumps(
        {
            "engine": file.sha256,
            "fastbts": [__version__, _source_sha256()],
            "openvino": str(ov.__version__),
            "cpu": [*cpu, os.cpu_count(), n_cpus],
            "settings": [precision, settings],
        },
        sort_keys=True,
    )


@cache
def _source_sha256() -> str:
    """Of this module and its siblings, which make the network that is compiled."""
    sources = sorted(Path(__file__).parent.glob("openvino*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _check_quantized(ov: Any, file: EngineFile, network: Any) -> None:
    """Checks what `check_graph` checks in the ONNX: ends, and no loops or branches."""
    loops = {op.get_type_name() for op in network.get_ops()} & {"If", "Loop", "TensorIterator"}
    n_inputs = 1 if baked_text(file) is None else 2
    ends = [*network.inputs[:1], *network.outputs]
    wanted = [
        ov.PartialShape([-1, len(names), -1, -1, -1])
        for names in (file.spec.modalities, file.spec.regions)
    ]
    if (
        loops
        or len(network.inputs) != n_inputs
        or len(ends) != 2
        or not all(end.partial_shape.compatible(w) for end, w in zip(ends, wanted, strict=True))
    ):
        raise EngineFileError(
            f"{file.path}: {INT8_PAYLOADS[0]}: expected {n_inputs} inputs, shapes {wanted} and no "
            f"loops, got {network.inputs}, {network.outputs} and {sorted(loops)}; build it again"
        )


def _read(core: Any, onnx_bytes: bytes) -> Any:
    network = core.read_model(onnx_bytes)
    volume = network.inputs[0]
    network.reshape({volume: [1, *volume.partial_shape[1:]]})
    return network


def _settings(core: Any, precision: str, n_threads: int, parallel: int = 1) -> dict[str, str]:
    # int8 leaves some layers in floating point. Set in any case: OpenVINO's default differs by CPU.
    floats = precision if precision != "int8" else "bf16" if _has_bf16(core) else "fp32"
    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one case
        "INFERENCE_PRECISION_HINT": floats.replace("fp", "f"),
        # Every network and process would pin its threads to the same first cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    if n_threads:
        settings["INFERENCE_NUM_THREADS"] = str(n_threads)
    if parallel > 1:  # each stream has its share of the threads, and its own memory
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(parallel)}
    return settings


def _precision(core: Any, file: EngineFile, wanted: str) -> Precision:
    if wanted == "bf16" and not _has_bf16(core):
        raise DeviceError(
            "precision 'bf16': this CPU does not compute in bf16; use precision='fp32' or 'auto'"
        )
    chosen = choose(file, wanted, _has_bf16(core))
    if chosen.name == "int8" and not set(INT8_PAYLOADS) <= set(file.payloads):
        raise OptionsError(
            f"{file.path}: precision 'int8': the file holds no int8 network; make one with: "
            f"fastbts build {Path(file.path).name} -o OUT --precision int8 --calibrate CASE"
        )
    return chosen


def _has_bf16(core: Any) -> bool:
    # Where the CPU does not list bf16, it is emulated (about 6x slower) or fails to compile.
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _cpu_name(core: Any) -> str:
    return str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()


def _version(ov: Any) -> str:
    return str(ov.__version__).split("-")[0]
