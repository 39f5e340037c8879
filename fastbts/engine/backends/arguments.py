"""Checks of what `Engine.infer` is given: arrays of the host, or of the engine's device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.device.arrays import DeviceArray
from fastbts.device.interface import row_major
from fastbts.engine.file import EngineFile
from fastbts.errors import OptionsError
from fastbts.ops import Packing
from fastbts.spec import EngineSpec

Floats = NDArray[np.float32]
Tensor = Floats | DeviceArray
ALIGNMENT = 256
"""Of addresses on a device, in bytes: TensorRT asks for it, and CUDA allocates so."""


def images(spec: EngineSpec, max_side: int | None, device: str, tensor: Tensor) -> Tensor:
    """The images (B, M, D, H, W) as float32: a NumPy array is converted, others are taken as they
    are.

    Raises:
        OptionsError: The shape does not fit the network, or the array cannot be used on `device`.
    """
    n_modalities, sides = len(spec.modalities), tensor.shape[2:]
    if tensor.ndim != 5 or tensor.shape[1] != n_modalities or not spec.takes(sides):
        raise OptionsError(
            f"tensor of shape {tensor.shape}: expected (B, {n_modalities}, D, H, W) with D, H, W "
            f"multiples of {spec.stride}, {spec.least_side} or more"
        )
    if max_side is not None and max(sides) > max_side:
        raise OptionsError(
            f"tensor of shape {tensor.shape}: this engine takes sides up to {max_side}; "
            "use mode='sliding'"
        )
    if isinstance(tensor, DeviceArray):
        return _on_device("tensor", tensor, device)
    return np.ascontiguousarray(tensor, np.float32)


def packed_images(spec: EngineSpec, packing: Packing | None, tensor: NDArray[Any]) -> Packing:
    """The packing, which the packed images of one case must have.

    Raises:
        OptionsError: They do not have it, or do not fit the network.
    """
    if packing is None:
        raise OptionsError("packed tensor: this engine takes voxels only; use infer")
    size = packing.size(tensor.shape)
    shape = packing.shape(len(spec.modalities), size)
    if (
        tensor.shape != shape
        or tensor.dtype != packing.dtype
        or not tensor.flags.c_contiguous
        or not spec.takes(size)
    ):
        raise OptionsError(
            f"packed tensor: {_described(tensor)}: expected contiguous {np.dtype(packing.dtype)} "
            f"of shape ({shape[0]}, D, H, W) with sides that are multiples of "
            f"{spec.stride // packing.patch}, {spec.least_side // packing.patch} or more"
        )
    return packing


def text_table(file: EngineFile, default: Floats | None, text: Floats | None) -> Floats | None:
    """The text to run with: the one given, or the network's; None where it reads no text.

    Raises:
        OptionsError: The network reads no text, or one of another shape.
    """
    if text is None:
        return default
    if default is None:
        raise OptionsError(
            f"{file.path}: its network reads no text; omit `text` or load an engine that reads it"
        )
    if text.shape != default.shape:
        raise OptionsError(
            f"text of shape {text.shape}: expected {default.shape}, one embedding per region"
        )
    return np.ascontiguousarray(text, np.float32)


def results(out: Any, tensor: Tensor, shape: tuple[int, ...]) -> Any:
    """The array for the logits: the one given, or a new NumPy array.

    Raises:
        OptionsError: It has another shape or type, or is not where the tensor is.
    """
    if isinstance(tensor, DeviceArray):
        if not isinstance(out, DeviceArray) or out.shape != shape:
            raise OptionsError(
                f"out: expected a float32 array of shape {shape} on {tensor.device}, as the tensor "
                f"is there; got {_described(out)}"
            )
        return _on_device("out", out, tensor.device)
    return np.empty(shape, np.float32) if out is None else _writable(out, shape)


def _writable(out: Any, shape: tuple[int, ...]) -> Floats:
    flags = getattr(out, "flags", None)
    if (
        flags is None
        or out.shape != shape
        or out.dtype != np.float32
        or not (flags.c_contiguous and flags.writeable)
    ):
        raise OptionsError(
            f"out: {_described(out)}: expected a writable, contiguous float32 array of shape "
            f"{shape}"
        )
    return out


def _on_device(name: str, array: DeviceArray, device: str) -> DeviceArray:
    if array.device != device:
        raise OptionsError(
            f"{name}: {_described(array)}: this engine runs on {device}; give a NumPy array, or "
            f"load the engine with device={array.device!r}"
        )
    if array.dtype != np.float32 or not _is_row_major(array) or array.address % ALIGNMENT:
        raise OptionsError(
            f"{name}: {_described(array)} with strides {array.strides}: expected contiguous "
            f"float32 at a multiple of {ALIGNMENT} bytes"
        )
    return array


def _is_row_major(array: DeviceArray) -> bool:
    """Whether the elements lie as in C; the stride of an axis of one element does not matter."""
    steps = zip(array.shape, array.strides, row_major(array.shape, array.dtype), strict=True)
    return all(n == 1 or step == expected for n, step, expected in steps)


def _described(array: Any) -> str:
    if not hasattr(array, "dtype"):
        return repr(array)
    where = f" on {array.device}" if isinstance(array, DeviceArray) else ""
    return f"{array.dtype} of shape {array.shape}{where}"
