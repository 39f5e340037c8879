"""Arrays of other libraries on emulated devices, and ours as they see them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastbts import _C, InputError, Segmenter
from fastbts.device.arrays import borrow
from fastbts.device.cuda import CudaWorkspace
from tests.device.cases import AFFINES, LAYOUTS, assert_same, images, on_device, on_the_host
from tests.fakes import EmulatedCuda, cupy
from tests.fakes.voxel_engine import DeviceVoxelEngine


def with_dlpack(array: Any) -> Any:
    return SimpleNamespace(__dlpack__=array.__dlpack__, __dlpack_device__=array.__dlpack_device__)


def with_interface(array: Any) -> Any:
    return SimpleNamespace(__cuda_array_interface__=array.__cuda_array_interface__)


@pytest.mark.parametrize("protocol", [with_dlpack, with_interface])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_are_borrowed_with_their_strides(
    emulated: EmulatedCuda, protocol: Any, layout: str
) -> None:
    array = LAYOUTS[layout](images())
    there = on_device(array, 1)
    got = borrow(protocol(there))
    assert got.device == "cuda:1"
    assert got.address == there.__cuda_array_interface__["data"][0]
    assert (got.shape, got.strides, got.dtype) == (array.shape, array.strides, array.dtype)
    np.testing.assert_array_equal(got.get(), array)


class OfTorch:
    """As PyTorch's tensors: exported only while their device is the current one."""

    def __init__(self, array: Any, cuda: EmulatedCuda) -> None:
        self.array, self.cuda = array, cuda

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        if self.cuda.device != self.array.device.id:
            raise BufferError("Can't export tensors on a different CUDA device index.")
        return self.array.__dlpack__(**options)


def with_stream(array: Any, cuda: EmulatedCuda) -> Any:
    """Says the stream of its device that makes it."""
    with cupy.cuda.Device(array.device.id):
        source, stream = array.get(), cupy.cuda.Stream(non_blocking=True)
        array.set(source, stream=stream)
    says = {**array.__cuda_array_interface__, "stream": stream.ptr}
    return SimpleNamespace(__cuda_array_interface__=says, made_of=(array, stream, source))


@pytest.mark.parametrize("protocol", [OfTorch, with_stream])
def test_the_device_of_an_array_need_not_be_the_current_one(
    emulated: EmulatedCuda, protocol: Any
) -> None:
    array, affine = images(), AFFINES["RAS"]
    there = protocol(on_device(array, 1), emulated)
    assert borrow(there).device == "cuda:1"
    segmenter = Segmenter(DeviceVoxelEngine(emulated, "cuda:1"), warm_up=False)
    result = segmenter.predict(there, affine=affine)
    assert_same(result, on_the_host(array, affine=affine))
    assert emulated.device == 0


def test_ours_can_be_borrowed(emulated: EmulatedCuda) -> None:
    workspace = CudaWorkspace(0)
    array = workspace.put(images(), "images")
    for given in (array, with_dlpack(array), with_interface(array)):
        got = borrow(given)
        assert (got.address, got.shape, got.strides) == (array.address, array.shape, array.strides)
    flipped = array[:, ::-1]
    assert _C.describe(flipped, 0)[3] == flipped.strides
    assert borrow(with_interface(flipped)).strides == flipped.strides


def test_a_capsule_keeps_the_memory(emulated: EmulatedCuda) -> None:
    workspace = CudaWorkspace(0)
    array = workspace.own(workspace.put(images(), "images"))
    capsule = array.__dlpack__(max_version=(1, 0))
    workspace.close()
    used = emulated.used(0)
    del workspace, array
    assert emulated.used(0) == used
    del capsule
    assert emulated.used(0) == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images(), "got int16 on the CPU"),
        (3, "describe: array: expected an array of real numbers, got a int"),
        (np.zeros(3, bool), "expected an array of real numbers, got bool"),
    ],
)
def test_what_is_not_on_a_device(emulated: EmulatedCuda, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        borrow(array)
