"""`fastbts.ops` on every device there is: NumPy arrays in and out, so that one test serves all."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import DeviceError, ops
from tests.ops.op import Op
from tests.ops.registry import OPS
from tests.simt.emulated import STREAM, EmulatedArray, emulated_device

Ops = Any
"""`fastbts.ops`, or a `Device`, which has the same functions."""

REQUIRE_CUDA = os.environ.get("FASTBTS_REQUIRE_CUDA") == "1"
"""Set on machines with a GPU: CUDA tests then fail where they would not be collected."""


def available_devices() -> list[str]:
    """The CPU, and CUDA where it can be used or must be."""
    try:
        ops.n_cuda_devices()
    except DeviceError:
        return ["cpu", "cuda"] if REQUIRE_CUDA else ["cpu"]
    return ["cpu", "cuda"]


def on(device: str) -> Ops:
    """The ops on "cpu", "cuda" or "emulated"."""
    return {"cpu": ops, "cuda": CudaDevice(), "emulated": EmulatedDevice()}[device]


RESULTS = {"label": ops.RegionCounts, "components": ops.Parts, "stray_core": ops.StrayCore}
"""What ops return that write numbers."""


class Device:
    """The functions of `fastbts.ops` for NumPy arrays, which are copied to a device and back."""

    def put(self, array: NDArray[Any], is_float: bool = False) -> Any:
        """An array on the device, strides and all; `is_float`: one of `Op.floats`."""
        raise NotImplementedError

    def run(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        return function(**arguments)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, OPS[name])

    def _call(self, op: Op, *arguments: Any, **options: Any) -> Any:
        given = inspect.signature(op.function).bind(*arguments, **options).arguments
        given.pop("n_threads", None)
        there = self.moved(op, op.outputs(given) | given)
        result = self.run(op.function, there)
        for name in set(op.results) & set(given):
            given[name][...] = fetched(there[name])
            if result is there[name]:
                return given[name]
        made = RESULTS.get(op.name)
        return made.of(there["counts"].tolist()) if made else fetched(result)

    def moved(self, op: Op, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of an op, on the device."""
        return {
            name: value
            if name in op.on_host
            else mapped(partial(self.put, is_float=name in op.floats), value)
            for name, value in arguments.items()
        }


class EmulatedDevice(Device):
    """That of the SIMT emulation.

    Args:
        dtype: Type of network tensors there; their memory is shared where it is float32.
        plan: As `emulated_device` takes it.
    """

    def __init__(self, dtype: str = "float32", **plan: Any) -> None:
        self.dtype, self.plan = dtype, plan

    def put(self, array: NDArray[Any], is_float: bool = False) -> EmulatedArray:
        return EmulatedArray(array, self.dtype if is_float else "float32")

    def run(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        with emulated_device(**self.plan):
            return function(**arguments, stream=STREAM)

    def results(self, op: Op, arguments: dict[str, Any]) -> list[NDArray[Any]]:
        """Results of an op for these arguments, which have arrays for all that it writes."""
        there = self.moved(op, arguments)
        self.run(op.function, there)
        return [array.get() for array in op.written(there)]


class CudaDevice(Device):
    """The first CUDA device."""

    def put(self, array: NDArray[Any], is_float: bool = False) -> Any:
        return put(array)


class OnDevice:
    """Says by DLPack that it is on the first device of a type, and must not be asked for more."""

    def __init__(self, shape: tuple[int, ...], device_type: int = 2) -> None:
        self.device_type, self.shape = device_type, shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device_type, 0


def first_on_device(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the first array as `OnDevice`."""
    name, array = next(iter(arguments.items()))
    return arguments | {name: OnDevice(array.shape)}


def mapped(change: Callable[[NDArray[Any]], Any], value: Any) -> Any:
    """The value with its arrays changed, in tuples too."""
    if isinstance(value, np.ndarray):
        return change(value)
    if not isinstance(value, tuple):
        return value
    items = [mapped(change, item) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def fetched(value: Any) -> Any:
    """Device arrays as NumPy arrays."""
    if isinstance(value, tuple):
        items = [fetched(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value.get() if hasattr(value, "get") else value


def cupy() -> Any:
    """CuPy, with an allocation for each array, whose ends compute-sanitizer then sees."""
    library = importlib.import_module("cupy")
    library.cuda.set_allocator(None)
    return library


def put(array: NDArray[Any]) -> Any:
    """Copies an array to the first CUDA device, strides and all."""
    if array.size == 0:
        return cupy().empty(array.shape, array.dtype)
    low, high = np.lib.array_utils.byte_bounds(array)
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    copy = cupy().asarray(memory)
    return cupy().ndarray(
        array.shape,
        array.dtype,
        memptr=copy.data + (array.ctypes.data - low),
        strides=array.strides,
    )
