"""Views of device memory against NumPy's: addresses, shapes and strides need no device."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from fastbts.device.arrays import DeviceArray
from fastbts.device.interface import row_major


def device_array(array: np.ndarray) -> DeviceArray:
    """As if the memory of a NumPy array were a device's."""
    return DeviceArray(array, array.ctypes.data, array.shape, array.strides, array.dtype, "cuda:1")


def host_array(array: DeviceArray) -> np.ndarray:
    low, n_bytes = array.extent
    owner = array.owner.view(np.uint8).ravel()
    begin = low - array.owner.ctypes.data
    return array.on_host(owner[begin : begin + n_bytes])


VIEWS: dict[str, Any] = {
    "all": lambda a: a[...],
    "one": lambda a: a[1],
    "last": lambda a: a[-1, 2],
    "part": lambda a: a[:, 1:3, ::2],
    "backwards": lambda a: a[:, ::-1, :, ::-2],
    "behind an ellipsis": lambda a: a[..., 3],
    "new axis": lambda a: a[None, 1],
    "empty": lambda a: a[:, 2:2],
    "transposed": lambda a: a.transpose(0, 3, 2, 1)[..., ::-1],
    "reversed": lambda a: a.T[1:],
    "NumPy's integers": lambda a: a[np.int64(1), :, np.int32(0)],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_those_of_numpy(name: str) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    expected, got = VIEWS[name](array), VIEWS[name](device_array(array))
    assert got.shape == expected.shape
    assert got.size == expected.size
    assert got.nbytes == expected.nbytes
    assert np.array_equal(host_array(got), expected)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((2,), "index 2 is outside an axis of 2"),
        ((0, 0, 0, 0, 0), "too many indices"),
        (([0, 1],), r"index \[0, 1\]: expected integers"),
        ((True,), "index True: expected integers"),
    ],
)
def test_other_indices_are_errors(index: Any, message: str) -> None:
    array = device_array(np.zeros((2, 3, 4, 5), np.int16))
    with pytest.raises(IndexError, match=message):
        array[index]
    with pytest.raises(ValueError, match=r"axes \(0, 0\): expected each of 0 to 3 once"):
        array.transpose(0, 0)


def test_a_new_axis_leaves_an_array_contiguous() -> None:
    array = device_array(np.zeros((4, 5, 6), np.int16))
    assert array[None].strides == row_major((1, 4, 5, 6), np.int16)
    assert array[..., None].strides == row_major((4, 5, 6, 1), np.int16)
    assert array[None, 2].strides == row_major((1, 5, 6), np.int16)


def test_dense_is_what_fills_its_memory() -> None:
    array = device_array(np.zeros((4, 5, 6), np.int16))
    assert array.is_dense
    assert array.T[::-1].is_dense
    assert not array[:, ::2].is_dense
    assert row_major((4, 5, 6), np.int16) == array.strides


def test_protocols_describe_the_array() -> None:
    array = device_array(np.zeros((4, 6), np.float32))[1:, ::2]
    interface = array.__cuda_array_interface__
    assert interface["shape"] == (3, 3)
    assert interface["strides"] == (24, 8)
    assert interface["typestr"] == "<f4"
    assert interface["data"] == (array.owner.ctypes.data + 24, False)
    assert array.__dlpack_device__() == (2, 1)
    assert 'capsule object "dltensor"' in repr(array.__dlpack__())
    assert 'capsule object "dltensor_versioned"' in repr(array.__dlpack__(max_version=(1, 0)))


def test_an_unread_capsule_frees_its_owner() -> None:
    alive = []

    class Owner(np.ndarray):
        def __del__(self) -> None:
            alive.append("freed")

    array = device_array(np.zeros(4, np.float32).view(Owner))
    capsule = array.__dlpack__(max_version=(1, 0))
    del array
    gc.collect()
    assert not alive
    del capsule
    assert alive == ["freed"]


def test_what_dlpack_cannot_say_is_an_error() -> None:
    array = device_array(np.zeros((4, 6), np.float32))
    with pytest.raises(BufferError, match=r"negative stride.*ascontiguousarray"):
        array[::-1].__dlpack__()
    with pytest.raises(BufferError, match=r"copy it there with \.get"):
        array.__dlpack__(copy=True)
    with pytest.raises(BufferError, match=r"copy it there with \.get"):
        array.__dlpack__(dl_device=(1, 0))


def test_numpy_does_not_fetch_it_unasked() -> None:
    with pytest.raises(TypeError, match=r"copy it to the host with \.get"):
        np.asarray(device_array(np.zeros(3)))
