"""Arrays of other libraries are borrowed by protocol, with their memory, or refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastbts import DeviceError, InputError, OptionsError, ops
from fastbts.ops.arrays import stream_handle
from tests.ops.devices import OnDevice, first_on_device
from tests.ops.op import Op
from tests.ops.registry import CUDA_OPS
from tests.ops.views import noise_image

ORIGIN = np.zeros((1, 3), np.int32)
SIZE = (2, 3, 4)


class Lent:
    """An array that has nothing but DLPack."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.options = array, array.shape, {}

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        self.options = options
        return self.array.__dlpack__(**options)


class LentOldStyle(Lent):
    """The same, from before DLPack 1.0: no `max_version`, no flags."""

    def __dlpack__(self, stream: object = None) -> object:  # type: ignore[override]
        return self.array.__dlpack__(stream=stream)


@pytest.mark.parametrize("lend", [Lent, LentOldStyle, torch.from_numpy])
def test_read_and_written_in_place(lend: Any) -> None:
    tensor = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    out = np.zeros((1, 1, 1, 2, 2), np.float32)
    ops.window(lend(tensor), lend(ORIGIN), (1, 2, 2), out=lend(out))
    assert out.ravel().tolist() == [0, 1, 2, 3]
    assert np.from_dlpack(Lent(out)) is not out  # NumPy, too, takes what the tests lend


def test_asks_for_dlpack_1_and_no_stream_on_the_cpu() -> None:
    lent = Lent(np.ones((1, 2, 2, 2), np.float32))
    ops.window(lent, ORIGIN, (1, 1, 1))
    assert lent.options == {"max_version": (1, 0)}


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8", "f4", "f8"])
def test_images_of_torch_with_any_strides(dtype: str) -> None:
    volume = noise_image((5, 6, 7), dtype)
    lent = torch.from_numpy(np.ascontiguousarray(volume.transpose(0, 3, 2, 1))).permute(0, 3, 2, 1)
    assert ops.brain_box(lent) == ops.brain_box(volume)
    box = ops.brain_box(volume)
    expected, stats = ops.normalize(np.asfortranarray(volume), box.bounds, box.size)
    tensor, torch_stats = ops.normalize(lent, box.bounds, box.size)
    np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-6)  # sums in another order
    np.testing.assert_allclose(torch_stats, stats, rtol=1e-12)


def test_labels_and_totals_of_torch() -> None:
    labels = torch.zeros(2, 2, 2, dtype=torch.uint8)
    box = ((0, 2), (0, 2), (0, 2))
    counts = ops.label(torch.ones(3, 2, 2, 2), (0, 0, 0), box, (0.5,) * 3, (2, 1, 4), labels)
    assert counts == (8, 8, 8, 0)
    assert labels.tolist() == np.full((2, 2, 2), 4).tolist()
    total = torch.zeros(1, 2, 2, 2)
    weights = (torch.ones(1, 2), torch.ones(1, 2), torch.full((1, 2), 0.5))
    ops.blend(torch.ones(1, 1, 2, 2, 2), torch.from_numpy(ORIGIN), weights, total)
    assert (total == 0.5).all()


def read_only(shape: tuple[int, ...], dtype: type = np.float32) -> NDArray[Any]:
    array = np.zeros(shape, dtype)
    array.setflags(write=False)
    return array


def test_read_only_is_refused_for_outputs_only() -> None:
    assert ops.brain_box(Lent(read_only((1, 2, 2, 2)))).n_brain == 0
    with pytest.raises(InputError, match=r"window: out: expected float32 .*, which is read-only"):
        ops.window(
            np.zeros((1, 2, 2, 2), np.float32),
            ORIGIN,
            (1, 2, 2),
            out=Lent(read_only((1, 1, 1, 2, 2))),
        )


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(1, 2, 2, 2, dtype=torch.float64),
            r"expected float32 \(M, D, H, W\), got float64 of shape \(1, 2, 2, 2\)",
        ),
        (torch.zeros(1, 2, 2, 2, dtype=torch.float16), r"got float16 of shape"),
        (torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16), r"got bfloat16 of shape"),
        (torch.zeros(1, 2, 2, 2, dtype=torch.complex64), r"got DLPack type 5 of 64 bits of shape"),
        (torch.zeros(2, 2, 2), r"got float32 of shape \(2, 2, 2\)"),
        (torch.zeros(1, 2, 2, 4)[..., ::2], r"whose last axis is not contiguous"),
        (
            torch.zeros(1, 2, 2, 2, requires_grad=True),
            r"got a Tensor that cannot be borrowed: .*require",
        ),
        (Lent(read_only((1, 2, 2, 2), np.bool_)), r"got bool of shape"),
    ],
)
def test_unusable_arrays_are_refused(tensor: Any, message: str) -> None:
    with pytest.raises(InputError, match=r"window: tensor: .*" + message):
        ops.window(tensor, ORIGIN, (1, 1, 1))


def test_half_precision_is_for_devices() -> None:
    with pytest.raises(
        InputError, match=r"brain_box: volume: expected a real image .* got bfloat16"
    ):
        ops.brain_box(torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16))


def test_a_capsule_of_something_else_is_refused() -> None:
    class Liar(Lent):
        def __dlpack__(self, **options: Any) -> object:
            return object()

    with pytest.raises(
        InputError, match=r"window: tensor: .* which is no capsule of DLPack 1 or older"
    ):
        ops.window(Liar(np.zeros((1, 2, 2, 2), np.float32)), ORIGIN, (1, 1, 1))


def test_other_kinds_of_devices_are_refused() -> None:
    out = np.zeros((1, 1, 1, 1, 1), np.float32)
    with pytest.raises(
        DeviceError,
        match=r"window: tensor: expected an array on the CPU or a CUDA device, got .* device 10",
    ):
        ops.window(OnDevice((1, 2, 2, 2), device_type=10), ORIGIN, (1, 1, 1), out=out)


@pytest.mark.parametrize(
    "op", [op for op in CUDA_OPS if op.outputs(op.arguments(0, SIZE))], ids=str
)
def test_caller_allocates_outputs_on_a_device(op: Op) -> None:
    """The op says what its caller must allocate there."""
    given = op.example(np.random.default_rng(0), SIZE, op.dtypes[0])
    (name, first), *_ = op.outputs(given).items()
    what = re.escape(f"allocate {first.dtype} of shape {first.shape}")
    expected = f"{op.name}: {name}: expected an array on the device .* {what}"
    with pytest.raises(OptionsError, match=expected):
        op.function(**first_on_device(given))


class Stream:
    """A stream as three libraries have it."""

    def __init__(self, **names: Any) -> None:
        self.__dict__.update(names)


class CoreStream:
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 7


@pytest.mark.parametrize(
    ("stream", "handle"),
    [(None, 0), (7, 7), (Stream(ptr=7), 7), (Stream(cuda_stream=7), 7), (CoreStream(), 7)],
)
def test_streams_of_every_library(stream: Any, handle: int) -> None:
    assert stream_handle(stream) == handle


def test_other_objects_than_streams_are_refused() -> None:
    with pytest.raises(
        OptionsError, match=r"stream: expected a CUDA stream, its address or None, got a str"
    ):
        ops.window(np.zeros((1, 2, 2, 2), np.float32), ORIGIN, (1, 1, 1), stream="default")
