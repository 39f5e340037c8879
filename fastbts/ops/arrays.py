"""Arrays and streams of any library, borrowed by protocol: none of those libraries is imported."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastbts.errors import InputError, OptionsError

Array = Any
"""An array of NumPy, or one with DLPack (CuPy, torch, JAX, ...) or `__cuda_array_interface__`."""

_HOST_MEMORY = (1, 3)  # kDLCPU and kDLCUDAHost of DLPack


def is_on_device(array: Array) -> bool:
    """Whether an array says that it is in the memory of a device."""
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


def output_array(
    name: str,
    given: Array | None,
    like: Array,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float32,
) -> Array:
    """The array to write into: the one given, or a new one in host memory.

    Of a given array only the volume (D, H, W) is checked here, as the C++ op does not know the
    size that the caller asked for.

    Raises:
        InputError: The array given is of another size than `shape`.
        OptionsError: A size is negative; or none is given and `like` is on a device, where nothing
            is allocated.
    """
    size = shape[-3:]
    if given is not None:
        if len(shape) > 3 and tuple(given.shape[-3:]) != size:
            raise InputError(f"{name}: expected {size} voxels, got shape {tuple(given.shape)}")
        return given
    if min(shape, default=0) < 0:
        raise OptionsError(f"size: expected no negative sizes, got {size}")
    if is_on_device(like):
        raise OptionsError(
            f"{name}: expected an array on the device of the input, got None; "
            f"allocate {np.dtype(dtype)} of shape {shape} there"
        )
    return np.empty(shape, dtype)
