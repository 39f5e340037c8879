"""What the ops refuse: arrays are borrowed as they are, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops

BOX = ((0, 2), (0, 2), (0, 2))


def misaligned(dtype: type) -> NDArray[Any]:
    return (
        np.frombuffer(bytes(1 + 8 * np.dtype(dtype).itemsize), np.uint8)[1:]
        .view(dtype)
        .reshape(1, 2, 2, 2)
    )


@pytest.mark.parametrize(
    "op", [ops.brain_box, lambda volume: ops.normalize(volume, BOX, (2, 2, 2))]
)
@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ([[[[1]]]], r": volume: expected a real image \(M, D, H, W\), got a list"),
        (
            np.zeros((2, 2, 2), np.int16),
            r"expected a real image \(M, D, H, W\), got int16 of shape \(2, 2, 2\)",
        ),
        (np.zeros((1, 2, 2, 2), np.complex64), r"got complex64 of shape"),
        (np.zeros((1, 2, 2, 2), np.float16), r"got float16 of shape"),
        (np.zeros((1, 2, 2, 2), np.longdouble), r"got float128 of shape"),
        (np.zeros((1, 2, 2, 2), np.bool_), r"got bool of shape"),
        (np.zeros((1, 2, 2, 2), object), r"got object of shape"),
        (
            np.zeros((1, 2, 2, 2), ">i2"),
            r"got >i2 of shape .*, which is not in native byte order; use x.astype",
        ),
        (misaligned(np.int16), r"got int16 .*, which is not aligned; use x.copy\(\)"),
    ],
)
def test_images(op: Callable[[Any], object], volume: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        op(volume)


def test_this_machines_byte_order_may_be_named() -> None:
    """As in nibabel's arrays."""
    order = "<" if sys.byteorder == "little" else ">"
    image = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4)
    named = image.view(image.dtype.newbyteorder(order))
    assert named.dtype.byteorder == order
    np.testing.assert_array_equal(ops.resample(named, (2, 2, 2)), ops.resample(image, (2, 2, 2)))


def test_no_modality_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"brain_box: volume: expected at least one modality, got shape \(0, 2, 2, 2\)",
    ):
        ops.brain_box(np.zeros((0, 2, 2, 2), np.int16))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            np.zeros((1, 4, 4, 4)),
            r"window: tensor: expected float32 \(M, D, H, W\), got float64 of shape \(1, 4, 4, 4\)",
        ),
        (
            np.zeros((4, 4, 4), np.float32),
            r"window: tensor: expected float32 \(M, D, H, W\), got float32 of shape \(4, 4, 4\)",
        ),
        (np.zeros((1, 4, 4, 4), ">f4"), r"window: tensor: .* not in native byte order"),
        (
            np.zeros((1, 4, 4, 8), np.float32)[..., ::2],
            r"window: tensor: .* not contiguous; use np.ascontiguousarray\(x\)",
        ),
        (np.zeros((1, 4, 4, 4), np.float32)[..., ::-1], r"window: tensor: .* not contiguous"),
        (np.zeros((1, 4, 4, 4), np.float32, order="F"), r"window: tensor: .* not contiguous"),
    ],
)
def test_network_tensors(tensor: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ops.window(tensor, np.zeros((1, 3), np.int32), (2, 2, 2))


def test_origins() -> None:
    with pytest.raises(
        InputError, match=r"window: origins: expected int32 \(B, 3\), got int64 of shape \(1, 3\)"
    ):
        ops.window(np.zeros((1, 4, 4, 4), np.float32), np.zeros((1, 3), np.int64), (2, 2, 2))


def test_outputs_must_be_writable() -> None:
    tensor, origins = np.zeros((1, 4, 4, 4), np.float32), np.zeros((1, 3), np.int32)
    with pytest.raises(InputError, match=r"window: out: .* which is read-only"):
        ops.window(tensor, origins, (2, 2, 2), out=read_only(np.zeros((1, 1, 2, 2, 2), np.float32)))
    weights = (np.ones((1, 2), np.float32),) * 3
    with pytest.raises(InputError, match=r"blend: total: .* which is read-only"):
        ops.blend(np.zeros((1, 1, 2, 2, 2), np.float32), origins, weights, read_only(tensor))
    labels = read_only(np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(InputError, match=r"label: labels: .* which is read-only"):
        ops.label(np.zeros((3, 2, 2, 2), np.float32), (0, 0, 0), BOX, (0.5,) * 3, (2, 1, 4), labels)


def test_inputs_may_be_read_only() -> None:
    volume = read_only(np.ones((1, 2, 2, 2), np.int16))
    assert ops.brain_box(volume).n_brain == 8
    assert ops.normalize(volume, BOX, (2, 2, 2))[1][0, 0] == 1


def test_negative_thread_count_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"n_threads: expected 0 \(all CPUs\) or more, got -1"):
        ops.brain_box(np.ones((1, 2, 2, 2), np.int16), n_threads=-1)


def test_messages_keep_their_numbers_beside_other_cpp_libraries() -> None:
    """The module carries its own C++ library; one that is loaded later must not break it."""
    script = (
        "from fastbts import ops; import numpy, openvino; ops.brain_box(numpy.ones((0, 2, 3, 5)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "expected at least one modality, got shape (0, 2, 3, 5)" in result.stderr
