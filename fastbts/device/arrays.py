"""Arrays in the memory of a CUDA device, described by address and strides: no library is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbts import _C
from fastbts.device.interface import row_major
from fastbts.device.runtime import Runtime
from fastbts.errors import InputError
from fastbts.ops.arrays import stream_handle

KDL_CUDA = 2  # kDLCUDA of DLPack


class DeviceArray:
    """A view of memory on a CUDA device.

    CuPy, torch and JAX take it without a copy: `cupy.asarray(array)`, `torch.from_dlpack(array)`.
    Its memory is freed when neither it nor a view of it is left; wait for your own work on it
    before that. Work on an array in a result of fastbts is done; nothing here waits. Pickled or
    deep-copied it becomes a NumPy array.

    Args:
        owner: Keeps the memory alive.
        address: Of the first element.
        shape: Number of elements along each axis.
        strides: In bytes; may be negative.
        dtype: Type of the elements.
        device: "cuda:N".
    """

    __slots__ = ("address", "device", "dtype", "owner", "shape", "strides")

    def __init__(
        self,
        owner: Any,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        dtype: DTypeLike,
        device: str,
    ) -> None:
        self.owner, self.address, self.device = owner, address, device
        self.shape, self.strides, self.dtype = tuple(shape), tuple(strides), np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def index(self) -> int:
        """Number of the device."""
        return int(self.device.removeprefix("cuda:"))

    @property
    def extent(self) -> tuple[int, int]:
        """First address and number of bytes from the first to the last element in memory."""
        if not self.size:
            return self.address, 0
        steps = [(n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)]
        low = sum(step for step in steps if step < 0)
        high = sum(step for step in steps if step > 0)
        return self.address + low, high - low + self.dtype.itemsize

    @property
    def is_dense(self) -> bool:
        """Whether its elements fill its memory, in any order of the axes."""
        return self.extent[1] == self.nbytes

    def images_of(self, index: Sequence[int]) -> DeviceImages:
        """Some of its images, in the order of `index`."""
        return DeviceImages([self[i] for i in index])

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a DeviceArray without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}, shape {self.shape}, on {self.device})"

    def view(self, address: int, shape: Sequence[int], strides: Sequence[int]) -> DeviceArray:
        """Other elements of the same memory."""
        return DeviceArray(self.owner, address, shape, strides, self.dtype, self.device)

    def transpose(self, *axes: int) -> DeviceArray:
        """The axes in another order; without arguments reversed."""
        order = axes or tuple(reversed(range(self.ndim)))
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"axes {axes}: expected each of 0 to {self.ndim - 1} once")
        shape, strides = ([values[axis] for axis in order] for values in (self.shape, self.strides))
        return self.view(self.address, shape, strides)

    @property
    def T(self) -> DeviceArray:
        """The axes in reverse order."""
        return self.transpose()

    def __getitem__(self, index: Any) -> DeviceArray:
        """A view: integers, slices with steps of either sign, Ellipsis and None, as in NumPy.

        Raises:
            IndexError: An index outside the array, too many of them, or one of another kind.
        """
        address, shape, strides = self.address, list[int](), list[int]()
        axes, new = iter(zip(self.shape, self.strides, strict=True)), list[int]()
        for one in self._full(index):
            if one is None:
                new.append(len(shape))
                shape.append(1)
                strides.append(self.dtype.itemsize)
                continue
            n, step = next(axes)
            if isinstance(one, slice):
                begin, end, stride = one.indices(n)
                length = len(range(begin, end, stride))
                address += begin * step if length else 0
                shape.append(length)
                strides.append(step * stride)
            else:
                address += _position(one, n) * step
        for axis in reversed(new[:-1] if new[-1:] == [len(shape) - 1] else new):
            strides[axis] = shape[axis + 1] * strides[axis + 1]  # contiguous arrays stay so
        return self.view(address, shape, strides)

    def _full(self, index: Any) -> tuple[Any, ...]:
        """The index with a slice for each axis that it leaves out."""
        given = index if isinstance(index, tuple) else (index,)
        n_missing = self.ndim - sum(one is not None and one is not Ellipsis for one in given)
        if n_missing < 0:
            raise IndexError(f"too many indices for an array of shape {self.shape}")
        at = next((i for i, one in enumerate(given) if one is Ellipsis), len(given))
        return (*given[:at], *[slice(None)] * n_missing, *given[at + 1 :])

    @property
    def _described(self) -> tuple[int, tuple[int, ...], list[int], str, int, int]:
        """For the ops: see csrc/bindings/source.h."""
        size = self.dtype.itemsize
        strides = [step // size for step in self.strides]
        return self.address, self.shape, strides, self.dtype.kind, size, self.index

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of Numba's protocol."""
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Type and number of the device, as in DLPack."""
        return KDL_CUDA, self.index

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule.

        Raises:
            BufferError: A stride is negative, which DLPack's readers do not take; or a copy or
                another device was asked for.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("a DeviceArray is shared where it is: copy it there with .get()")
        if min(self.strides, default=0) < 0:
            raise BufferError(
                "a DeviceArray with a negative stride cannot go through DLPack; copy it with "
                "cupy.ascontiguousarray(array), or .get()"
            )
        strides = [step // self.dtype.itemsize for step in self.strides]
        versioned = max_version is not None and max_version[0] >= 1
        return _C.dlpack_capsule(
            self.owner, self.address, self.shape, strides, self.dtype.str, self.index, versioned
        )

    def __array__(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        raise TypeError("a DeviceArray is on a CUDA device: copy it to the host with .get()")

    def get(self) -> NDArray[Any]:
        """A copy in host memory. Work on it must be done, as it is in results of fastbts."""
        low, n_bytes = self.extent
        host = np.empty(n_bytes, np.uint8)
        runtime = Runtime()
        with runtime.on(self.index):
            kind = runtime.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
            runtime("cudaMemcpy", host.ctypes.data, low, n_bytes, kind)
        return self.on_host(host)

    def __reduce__(self) -> Any:
        return self.get().__reduce__()

    def on_host(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """The same view of a copy of its extent in host memory."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        offset = self.address - self.extent[0]
        return np.ndarray(self.shape, self.dtype, memory.data, offset, self.strides)

    def tolist(self) -> Any:
        """The elements as Python numbers."""
        return self.get().tolist()


class DeviceImages:
    """Images (X, Y, Z) of one case on a device, each in its own memory, as one array (M, X, Y, Z).

    Raises:
        InputError: They differ in element type, device or order of the axes in memory, or one has
            gaps in memory.
    """

    def __init__(self, images: Sequence[DeviceArray]) -> None:
        first, self.images = images[0], tuple(images)
        for image in images:
            if (image.dtype, image.device) != (first.dtype, first.device):
                raise InputError(
                    f"images of {image.dtype} on {image.device} and of {first.dtype} on "
                    f"{first.device}: expected one type and device; convert or copy one of them"
                )
            if image.strides != first.strides or not image.is_dense:
                raise InputError(
                    f"images with strides {image.strides} and {first.strides} in bytes: expected "
                    "the same without gaps; copy them first (cupy.ascontiguousarray, or "
                    ".contiguous() of torch), or give one array (M, X, Y, Z)"
                )
        self.shape, self.ndim = (len(images), *first.shape), first.ndim + 1
        self.dtype, self.device = first.dtype, first.device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> DeviceArray:
        return self.images[index]

    def __reduce__(self) -> Any:
        return np.stack, (self.images,)

    def images_of(self, index: Sequence[int]) -> DeviceImages:
        """See `DeviceArray.images_of`."""
        return DeviceImages([self.images[i] for i in index])


class Borrowed(NamedTuple):
    """Owner of an array that is not ours."""

    array: Any
    """As it was given: asked again before it is read, so that we wait for the work on it."""
    memory: Any
    """Keeps the memory alive, such as a DLPack capsule."""


def on_host(array: Any) -> NDArray[Any]:
    """The array itself, or a copy of a device array."""
    host: NDArray[Any] = array.get() if isinstance(array, DeviceArray) else array
    return host


def _position(index: Any, n: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int | np.integer):
        raise IndexError(f"index {index!r}: expected integers, slices, Ellipsis or None")
    if not -n <= index < n:
        raise IndexError(f"index {index} is outside an axis of {n}")
    return int(index) % n


def contiguous(
    owner: Any, address: int, shape: Sequence[int], dtype: DTypeLike, device: str
) -> DeviceArray:
    """A row-major array at an address."""
    return DeviceArray(owner, address, shape, row_major(tuple(shape), dtype), dtype, device)


def borrow(array: Any, stream: Any = None) -> DeviceArray:
    """Describes an array of CuPy, torch or another library on a CUDA device, without a copy.

    Args:
        array: Has DLPack or `__cuda_array_interface__`.
        stream: Will wait for the work on the array so far; None for the default stream.
    Raises:
        InputError: It is not on a CUDA device, or NumPy has no such element type.
        DeviceError: There is no such device.
    """
    if isinstance(array, DeviceArray):
        return array
    owner, address, shape, strides, dtype, index, _ = _C.describe(array, stream_handle(stream))
    if index < 0 or dtype == "bfloat16":
        raise InputError(
            f"a {type(array).__name__}: expected an array of real numbers on a CUDA device, got "
            f"{dtype} on {'the CPU' if index < 0 else f'cuda:{index}'}"
        )
    return DeviceArray(Borrowed(array, owner), address, shape, strides, dtype, f"cuda:{index}")
