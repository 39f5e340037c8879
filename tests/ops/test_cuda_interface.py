"""Arrays of libraries that have `__cuda_array_interface__` alone, on an emulated CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastbts import _C, DeviceError, InputError, ops
from tests.fakes import EmulatedCuda, cupy

SHAPE = (1, 3, 4, 5)
ORIGIN = np.zeros((1, 3), np.int32)


class Interface:
    """A device array without DLPack, whose description may be changed."""

    def __init__(self, array: Any, **changed: Any) -> None:
        self.array, self.shape = array, array.shape
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | changed


@pytest.fixture
def tensor(cuda: EmulatedCuda) -> Any:
    return cupy.asarray(np.arange(60, dtype=np.float32).reshape(SHAPE))


def window(tensor: Any) -> Any:
    out = cupy.empty((1, 1, 2, 2, 2), np.float32)
    origins = cupy.asarray(ORIGIN)
    ops.window(tensor, Interface(origins), (2, 2, 2), out=Interface(out))
    return out.get()


@pytest.mark.parametrize("strides", [(240, 80, 20, 4), None])
def test_read_and_written_in_place(tensor: Any, strides: Any) -> None:
    result = window(Interface(tensor, strides=strides))
    assert np.array_equal(result, ops.window(tensor.get(), ORIGIN, (2, 2, 2)))


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_misaligned_memory_is_refused(tensor: Any, offset: int) -> None:
    """A GPU ends the context of the process when a kernel reads it."""
    changed = Interface(tensor, data=(tensor.data.ptr + offset, False))
    with pytest.raises(InputError, match=r"window: tensor: .*, which is not aligned; copy it"):
        window(changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strides": (98, 50, 18, 4)}, ", whose strides are not whole elements; copy it"),
        ({"strides": (80, 20, 4)}, ", whose strides are not one for each axis"),
        ({"strides": (240, 240, 80, 20, 4)}, ", whose strides are not one for each axis"),
        ({"shape": (1, -3, 4, 5)}, ", which has a negative size"),
        ({"typestr": ">f4"}, ", which is not in native byte order"),
        ({"mask": True}, ", which is masked"),
        ({"typestr": "|V0"}, r"got \|V0 of shape"),
        ({"typestr": "|V4"}, r"got \|V4 of shape"),
        ({"typestr": "no type"}, "got a Interface that cannot be borrowed: TypeError"),
        ({"data": None}, "got a Interface that describes itself wrongly"),
        ({"data": (-4, False)}, "got a Interface that describes itself wrongly"),
        ({"shape": "1345"}, "got a Interface that describes itself wrongly"),
    ],
)
def test_wrong_descriptions_are_refused(tensor: Any, changed: Any, message: str) -> None:
    expected = r"window: tensor: expected float32 \(M, D, H, W\), .*"
    with pytest.raises(InputError, match=expected + message):
        window(Interface(tensor, **changed))


def test_host_memory_is_refused(tensor: Any) -> None:
    on_host = np.zeros(SHAPE, np.float32)
    changed = Interface(tensor, data=(on_host.ctypes.data, False))
    with pytest.raises(DeviceError, match="window: tensor: expected memory of a CUDA device, got"):
        window(changed)


def test_read_only_results_are_refused(tensor: Any) -> None:
    out = cupy.empty((1, 1, 2, 2, 2), np.float32)
    read_only = Interface(out, data=(out.data.ptr, True))
    with pytest.raises(InputError, match=r"window: out: .*, which is read-only"):
        ops.window(tensor, cupy.asarray(ORIGIN), (2, 2, 2), out=read_only)


def test_empty_arrays_need_no_memory(cuda: EmulatedCuda) -> None:
    """Their pointer is null."""
    origins = Interface(cupy.empty((0, 3), np.int32))
    out, tensor = cupy.empty((0, 1, 2, 2, 2), np.float32), cupy.zeros(SHAPE, np.float32)
    assert origins.__cuda_array_interface__["data"] == (0, False)
    ops.window(tensor, origins, (2, 2, 2), out=Interface(out))


def test_the_ops_stream_waits_for_that_of_the_array(cuda: EmulatedCuda) -> None:
    """The owner's stream writes the tensor late; the result has what it wrote."""
    theirs, ours = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    tensor, origins = cupy.zeros(SHAPE, np.float32), cupy.asarray(ORIGIN)
    out = cupy.zeros((1, 1, 2, 2, 2), np.float32)
    out.get()
    tensor.set(np.ones(SHAPE, np.float32), stream=theirs)
    lent = Interface(tensor, stream=theirs.ptr)
    ops.window(lent, origins, (2, 2, 2), out=out, stream=ours)
    assert out.get().max() == 0, "work waits for nobody else"
    assert out.get(stream=ours).min() == 1


def test_describe(tensor: Any) -> None:
    view = Interface(tensor[:, ::-1, 1:])
    _, address, shape, strides, dtype, device, writable = _C.describe(view, 0)
    assert address == tensor.data.ptr + 2 * 80 + 20
    assert (shape, strides, dtype) == ((1, 3, 3, 5), (240, -80, 20, 4), "float32")
    assert (device, writable) == (0, True)


def test_counts_are_not_read_before_the_caller_waits(cuda: EmulatedCuda) -> None:
    box, stream = ((0, 2), (0, 3), (0, 4)), cupy.cuda.Stream(non_blocking=True)
    logits, labels = cupy.full((3, 2, 3, 4), 9, np.float32), cupy.zeros((2, 3, 4), np.uint8)
    counts, part_counts = cupy.zeros(4, np.int64), cupy.zeros(258, np.int64)
    scratch, half = Interface(cupy.empty((2, 24), np.int32)), (0.5,) * 3
    cuda.cudaDeviceSynchronize()
    given: Any = {"counts": Interface(counts), "stream": stream}
    assert ops.label(logits, (0, 0, 0), box, half, (2, 1, 4), labels, **given) is None
    given = {"counts": Interface(part_counts), "scratch": scratch, "stream": stream}
    assert ops.components(labels, box, 3, **given) is None
    assert counts.get().max() == part_counts.get().max() == 0
    assert ops.RegionCounts.of(counts.get(stream=stream).tolist()) == (24, 24, 24, 0)
    assert ops.Parts.of(part_counts.tolist()) == (1, 1, {})
