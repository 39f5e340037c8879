"""The CPU engine: OpenVINO compiles the engine file's ONNX in memory, for any spatial size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.engine.backends.base import Floats, Pool, check_arguments, describe, open_text
from fastbts.engine.backends.openvino_nodes import exact_norms, register_nodes
from fastbts.engine.file import EngineFile
from fastbts.errors import DeviceError, EngineFileError, OptionsError

PRECISIONS = ("fp32", "bf16", "int8")
INT8_PAYLOADS = ("openvino.xml", "openvino.bin")
"""The quantised network as OpenVINO IR: topology and weights."""


class OpenVINOEngine:
    """Runs an engine file on the CPU; `infer` is safe to call from several threads at once.

    Args:
        file: The verified engine file.
        precision: "fp32"; "bf16"; "int8", if the file was built for it; or "auto": bf16 where the CPU computes in it.
        threads: CPU threads; 0 for all.
    Raises:
        DeviceError: OpenVINO is not installed, or this CPU has no bf16.
        OptionsError: int8 of a file that was not built for it.
        EngineFileError: OpenVINO refuses the network.
    """

    def __init__(self, file: EngineFile, *, precision: str = "auto", threads: int = 0) -> None:
        ov = package()
        self.file, self.spec = file, file.spec
        onnx_bytes, self.text = open_text(file)
        core = ov.Core()
        self.precision = _precision(core, file, precision)
        # LATENCY: all threads work on one case. Never left to default: OpenVINO's own default precision differs by CPU.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _floats(core, self.precision),
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            network = (
                _quantized(ov, core, file) if self.precision == "int8" else _read(core, onnx_bytes)
            )
            if self.precision == "fp32":
                exact_norms(network)
            model = core.compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise EngineFileError(
                f"{file.path}: OpenVINO {ov.__version__} cannot compile the network: {error}"
            ) from error
        self._tensor = ov.Tensor
        self._requests: Pool[Any] = Pool(file, model.create_infer_request)
        self.description = describe(
            file,
            backend="openvino",
            backend_version=ov.__version__.split("-")[0],
            device="cpu",
            device_name=str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            precision=self.precision,
            threads=int(model.get_property("INFERENCE_NUM_THREADS")),
        )

    def infer(
        self, tensor: Floats, text: Floats | None = None, *, out: Floats | None = None
    ) -> Floats:
        """See `Engine.infer`."""
        tensor, table, logits = check_arguments(self.file, self.text, tensor, text, out)
        with self._requests.lend() as request:
            if table is not None:
                request.set_input_tensor(1, self._tensor(table, shared_memory=True))
            try:
                # One by one: all threads work on one volume anyway, and weights that belong to a case cannot be a batch's.
                for volume, result in zip(tensor[:, None], logits[:, None], strict=True):
                    request.set_input_tensor(0, self._tensor(volume, shared_memory=True))
                    request.set_output_tensor(self._tensor(result, shared_memory=True))
                    request.infer()
            except RuntimeError as error:
                raise DeviceError(
                    f"{self.file.path}: OpenVINO failed on a tensor of shape {tensor.shape}: {error}"
                ) from error
        return logits

    def close(self) -> None:
        """Frees the network."""
        self._requests.close()


def package() -> Any:
    """The module `openvino`, imported without its converter if fastbts is the first to import it.

    Importing the converter reports that to OpenVINO's makers, from a process of its own, whose network at worst holds up the exit
    for three seconds; fastbts uses no network. And it takes longer than all the rest. `openvino.convert_model` still works: it
    imports the converter when it is called.

    Raises:
        DeviceError: OpenVINO is not installed.
    """
    converter, first = "openvino.tools.ovc", "openvino" not in sys.modules
    if first:
        sys.modules[converter] = None  # type: ignore[assignment]  # the import system's "not there", which OpenVINO allows for
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(
            "OpenVINO is not installed; install it with: pip install openvino"
        ) from error
    finally:
        if first:
            sys.modules.pop(converter, None)  # another thread may have been first too
    if not hasattr(openvino, "convert_model"):
        openvino.convert_model = lambda *args, **kwargs: import_module(converter).convert_model(
            *args, **kwargs
        )
    return openvino


def _read(core: Any, onnx_bytes: bytes) -> Any:
    register_nodes(core)
    network = core.read_model(onnx_bytes)
    volume = network.inputs[0]
    network.reshape({volume: [1, *volume.partial_shape[1:]]})
    return network


def _quantized(ov: Any, core: Any, file: EngineFile) -> Any:
    xml, weights = (bytes(file.payloads[name]) for name in INT8_PAYLOADS)
    return core.read_model(xml, ov.Tensor(np.frombuffer(weights, np.uint8)))


def _precision(core: Any, file: EngineFile, wanted: str) -> str:
    if wanted == "auto":
        return "bf16" if _has_bf16(core) else "fp32"
    if wanted not in PRECISIONS:  # given fp16, its CPU plugin would take bf16 without a word
        raise DeviceError(
            f"precision {wanted!r}: OpenVINO's CPU backend has {', '.join(PRECISIONS)}"
        )
    if wanted == "bf16" and not _has_bf16(core):
        raise DeviceError(
            "precision 'bf16': this CPU does not compute in bf16; use precision='fp32' or 'auto'"
        )
    if wanted == "int8" and not set(INT8_PAYLOADS) <= set(file.payloads):
        raise OptionsError(
            f"{file.path}: precision 'int8': the file holds no int8 network; make one with: fastbts build {Path(file.path).name} "
            "-o OUT --precision int8 --calibrate CASE"
        )
    return wanted


def _floats(core: Any, precision: str) -> str:
    """OpenVINO's word for what is computed in floating point: all of it, or what int8 leaves."""
    floats = precision if precision != "int8" else "bf16" if _has_bf16(core) else "fp32"
    return floats.replace("fp", "f")


def _has_bf16(core: Any) -> bool:
    # bf16 that the CPU does not list is emulated (about 6x slower) or fails to compile.
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def build(file: EngineFile, precision: str, tensors: Sequence[Floats]) -> dict[str, bytes]:
    """What a file must hold beside the ONNX to run in a precision: the quantised network for int8, else nothing.

    Args:
        file: The network.
        precision: "fp32", "bf16" or "int8".
        tensors: Prepared cases (M, D, H, W) to calibrate on, in the shapes of later use; int8 needs at least one.
    Raises:
        DeviceError: OpenVINO or NNCF is not installed, or another precision.
        OptionsError: Nothing to calibrate on.
        EngineFileError: The network cannot be read or quantised.
    """
    if precision not in PRECISIONS:
        raise DeviceError(
            f"precision {precision!r}: OpenVINO's CPU backend has {', '.join(PRECISIONS)}"
        )
    if precision != "int8":
        return {}
    if not tensors:
        raise OptionsError(
            "precision 'int8': needs real cases to calibrate on; give some with --calibrate"
        )
    from fastbts.engine.backends.openvino_int8 import quantize

    ov = package()
    try:
        onnx_bytes, text = open_text(file)
        network = _read(ov.Core(), onnx_bytes)
    except RuntimeError as error:
        raise EngineFileError(
            f"{file.path}: OpenVINO {ov.__version__} cannot read the network: {error}"
        ) from error
    return dict(zip(INT8_PAYLOADS, quantize(network, text, tensors), strict=True))
