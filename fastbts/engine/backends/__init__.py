"""The table of backends. A backend is one module in this folder and one row here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastbts.errors import DeviceError, OptionsError

if TYPE_CHECKING:
    from fastbts.engine.backends.base import BaseEngine

HERE = "fastbts.engine.backends"


@dataclass(frozen=True)
class Backend:
    """One runtime that can run a network."""

    name: str
    """Name in options, reports and engine files."""
    devices: tuple[str, ...]
    """Kinds of device that it runs on, "cpu" or "cuda"; the first is its default."""
    precisions: tuple[str, ...]
    """Precisions it can compute in."""
    engine: str
    """Its engine, a subclass of `BaseEngine`, as "module:Class"; imported when it is used."""
    package: str
    """Import name of the Python package it needs."""
    install: str
    """Command that installs the package."""
    max_batch: int = 1
    """Most windows per call that it can be built for; 1 if its builds take any number."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables to set before the import, unless they are set."""

    def engine_class(self) -> type[BaseEngine[Any]]:
        """Imports the engine's class; the runtime's package is not imported yet."""
        module, name = self.engine.split(":")
        return getattr(import_module(module), name)

    def checked_device(self, device: str) -> str:
        """The device that a choice stands for, "cpu" or "cuda:N": the default for "auto", device 0
        for "cuda"; raises DeviceError for a kind that the backend does not run on."""
        kind = self.devices[0] if device == "auto" else device_kind(device)
        if kind not in self.devices:
            raise DeviceError(
                f"device {device!r}: backend {self.name!r} runs on {' or '.join(self.devices)}"
            )
        numbered = kind if device == "auto" else device
        return "cuda:0" if numbered == "cuda" else numbered

    def check_precision(self, precision: str) -> None:
        """Raises DeviceError if the backend does not compute in that precision."""
        if precision not in self.precisions:
            raise DeviceError(
                f"precision {precision!r}: backend {self.name!r} has {', '.join(self.precisions)}"
            )

    def check_batch(self, n_windows: int) -> None:
        """Raises OptionsError if the backend cannot be built for that many windows per call."""
        if not 1 <= n_windows <= self.max_batch:
            raise OptionsError(
                f"batch {n_windows}: expected 1 to {self.max_batch} for backend {self.name!r}; "
                "those that are not TensorRT's take any number of windows without it"
            )


BACKENDS = {
    row.name: row
    for row in (
        Backend(
            name="openvino",
            devices=("cpu",),
            precisions=("fp32", "bf16", "int8"),
            engine=f"{HERE}.openvino:OpenVINOEngine",
            package="openvino",
            install="pip install openvino",
        ),
        Backend(
            name="onnxruntime",
            devices=("cpu", "cuda"),
            precisions=("fp32", "tf32", "fp16"),
            engine=f"{HERE}.onnxruntime:ONNXRuntimeEngine",
            package="onnxruntime",
            install="pip install 'fastbts[onnxruntime]'",
            # It would send telemetry from its import on; nothing later stops it.
            environment=(("ORT_DISABLE_TELEMETRY", "1"),),
        ),
        Backend(
            name="tensorrt",
            devices=("cuda",),
            precisions=("fp32", "tf32", "fp16", "bf16", "int8"),
            engine=f"{HERE}.tensorrt:TensorRTEngine",
            package="tensorrt",
            install="pip install 'fastbts[tensorrt]'",
            max_batch=64,
        ),
        Backend(
            name="tensorrt-rtx",
            devices=("cuda",),
            precisions=("fp32", "tf32", "fp16", "bf16", "int8"),
            engine=f"{HERE}.tensorrt:TensorRTRTXEngine",
            package="tensorrt_rtx_bindings",
            install="pip install 'fastbts[tensorrt-rtx]'",
            max_batch=64,
        ),
        Backend(
            name="native",
            devices=("cuda",),
            precisions=("fp16",),
            engine=f"{HERE}.native:NativeEngine",
            package="cuda.bindings",
            install="pip install cuda-bindings",
        ),
    )
}
"""Every backend. On a device, "auto" takes the first one that runs there."""
DEFAULT_BACKEND = "openvino"
"""What `fastbts build` builds for, and measures every other build against."""


def device_kind(device: str) -> str:
    """Kind of a device: "cuda" for "cuda:1"."""
    return device.partition(":")[0]


def devices() -> tuple[str, ...]:
    """All kinds of device that a backend runs on."""
    return _union(row.devices for row in BACKENDS.values())


def precisions() -> tuple[str, ...]:
    """All precisions that a backend computes in."""
    return _union(row.precisions for row in BACKENDS.values())


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for group in groups for value in group))
