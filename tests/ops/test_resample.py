from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, RAGGED, restrided
from tests.tolerances import assert_close

Size = tuple[int, int, int]


def test_by_hand(device: Ops) -> None:
    line = np.array([0, 4], np.float32).reshape(1, 2, 1, 1)
    np.testing.assert_array_equal(device.resample(line, (4, 1, 1)).ravel(), [0, 1, 3, 4])
    np.testing.assert_array_equal(
        device.resample(device.resample(line, (4, 1, 1)), (2, 1, 1)).ravel(), [0.5, 3.5]
    )


def test_same_size_is_untouched(device: Ops) -> None:
    array = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(device.resample(array, (3, 4, 5)), array)


def ramp(size: Size, shape: Size) -> NDArray[np.float64]:
    """The sum of the coordinates in [0, 1]; constant beyond the outermost voxel centres."""
    centres = [
        np.clip((np.arange(n) + 0.5) / n, 0.5 / m, 1 - 0.5 / m)
        for n, m in zip(size, shape, strict=True)
    ]
    return sum(np.meshgrid(*centres, indexing="ij"))


@pytest.mark.parametrize("size", [(6, 9, 4), (1, 1, 1), (13, 5, 20)])
def test_linear_functions_survive(device: Ops, size: Size) -> None:
    """Interpolation is exact for a linear ramp, away from its constant edges."""
    shape = (6, 9, 10)
    out = device.resample(ramp(shape, shape)[None].astype(np.float32), size)[0]
    np.testing.assert_allclose(out, ramp(size, shape), atol=1e-5)


def peer(tensor: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """The same in NumPy float32."""
    for axis, n_out in enumerate(size, start=1):
        n_in = tensor.shape[axis]
        position = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = position.astype(int)
        part = (
            (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(4)])
        )
        below, above = tensor.take(low, axis), tensor.take(np.minimum(low + 1, n_in - 1), axis)
        tensor = below + (above - below) * part
    return tensor


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("size", [(5, 6, 7), (4, 6, 8), (1, 1, 1), (13, 11, 17), (0, 3, 3)])
@pytest.mark.parametrize("shape", RAGGED[:4])
def test_agrees_with_the_reference(device: Ops, shape: Size, size: Size, n_threads: int) -> None:
    tensor = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    assert_close(
        device.resample(tensor, size, n_threads),
        peer(tensor, size),
        reference.resample(tensor, size),
    )


def test_same_bits_as_numpy_for_any_threads() -> None:
    tensor = np.random.default_rng(0).normal(size=(2, 7, 13, 33)).astype(np.float32)
    for size, n_threads in product([(5, 6, 7), (13, 11, 17)], N_THREADS):
        np.testing.assert_array_equal(ops.resample(tensor, size, n_threads), peer(tensor, size))


def test_writes_into_a_given_tensor() -> None:
    tensor, buffer = (
        np.random.default_rng(0).random((2, 3, 4, 5), np.float32),
        np.zeros((4, 6, 4, 5), np.float32),
    )
    out = ops.resample(tensor, (6, 4, 5), out=buffer[1:3])
    np.testing.assert_array_equal(buffer[1:3], ops.resample(tensor, (6, 4, 5)))
    assert out.base is buffer
    assert not buffer[[0, 3]].any()


def test_outer_axes_may_have_any_strides() -> None:
    tensor = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype(np.float32)
    view = restrided(tensor, (1, 0, 2), (-1, -1, 1))[::-1]
    np.testing.assert_array_equal(
        ops.resample(view, (9, 4, 5)), ops.resample(np.ascontiguousarray(view), (9, 4, 5))
    )


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"resample: tensor: expected at least one voxel, got shape \(1, 2, 0, 2\)"
    ):
        ops.resample(np.zeros((1, 2, 0, 2), np.float32), (2, 2, 2))
    with pytest.raises(
        InputError, match=r"resample: tensor: expected float32 \(C, D, H, W\), got float64"
    ):
        ops.resample(np.zeros((1, 2, 2, 2)), (2, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(
        InputError,
        match=r"resample: out: expected \(2, 2, 2\) voxels, got shape \(1, 2, 2, 3\)",
    ):
        ops.resample(
            np.zeros((1, 2, 2, 2), np.float32), (2, 2, 2), out=np.zeros((1, 2, 2, 3), np.float32)
        )
    with pytest.raises(OptionsError, match=r"size: expected no negative sizes, got \(2, -2, 2\)"):
        ops.resample(np.zeros((1, 2, 2, 2), np.float32), (2, -2, 2))
