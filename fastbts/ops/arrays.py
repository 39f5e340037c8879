"""Arrays and streams of any library, borrowed by protocol: none of those libraries is imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbts.errors import OptionsError

Array = Any
"""An array of NumPy, or one that lends itself by DLPack (CuPy, torch, JAX, ...) or by `__cuda_array_interface__`."""

_HOST_MEMORY = (1, 3)  # kDLCPU and kDLCUDAHost of DLPack


def is_on_device(array: Array) -> bool:
    """Whether an array says that it lies in the memory of a device."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] not in _HOST_MEMORY
    return hasattr(array, "__cuda_array_interface__")


def stream_handle(stream: Any) -> int:
    """Address of a CUDA stream.

    Args:
        stream: Of CuPy, torch or cuda.core; or the address itself; None for the default stream.

    Raises:
        OptionsError: It is none of these.
    """
    if stream is None or isinstance(stream, int):
        return stream or 0
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("ptr", "cuda_stream"):
        if isinstance(handle := getattr(stream, name, None), int):
            return handle
    raise OptionsError(
        f"stream: expected a CUDA stream, its address or None, got a {type(stream).__name__}"
    )


def result(
    name: str,
    given: Array | None,
    like: Array | None,
    shape: tuple[int, ...],
    dtype: type = np.float32,
) -> Array:
    """The array to write into: the one given, or a new one in host memory.

    Raises:
        OptionsError: A size is negative; or none is given and `like` is on a device, where nothing is allocated.
    """
    if given is not None:
        return given
    if min(shape) < 0:
        raise OptionsError(f"size: expected no negative sizes, got {shape[-3:]}")
    if is_on_device(like):
        raise OptionsError(
            f"{name}: expected an array on the device of the input, got None; allocate {np.dtype(dtype)} of shape {shape} there"
        )
    return np.empty(shape, dtype)
