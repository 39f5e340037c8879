"""Arrays of other libraries on emulated devices, and ours as they see them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastbts import _C, InputError
from fastbts.device.arrays import borrow
from fastbts.device.cuda import CudaWorkspace
from tests.device.cases import LAYOUTS, images, on_device
from tests.fakes import EmulatedCuda


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
