from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.image_ops import oblique_grid
from tests.ops.op import noise
from tests.ops.views import N_THREADS, RAGGED, restrided

Size = tuple[int, int, int]


def oblique(seed: int, shape: Size, size: Size) -> NDArray[np.float64]:
    return oblique_grid(np.random.default_rng(seed), shape, size)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return noise(np.random.default_rng(seed), *shape)


def test_by_hand(device: Ops) -> None:
    """The edge value is used for half a voxel beyond the outermost centres."""
    line = np.array([0, 4, 6], np.float32).reshape(1, 1, 1, 3)
    matrix = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.25, -0.75]])
    out = device.resample_affine(line, matrix, (1, 1, 16), outside=-9)
    assert out.ravel().tolist() == [-9, 0, 0, 0, 1, 2, 3, 4, 4.5, 5, 5.5, 6, 6, 6, -9, -9]
    nearest = device.resample_affine(line, matrix, (1, 1, 16), nearest=True, outside=-9)
    assert nearest.ravel().tolist() == [-9, 0, 0, 0, 0, 4, 4, 4, 4, 6, 6, 6, 6, 6, -9, -9]


@pytest.mark.parametrize("nearest", [False, True])
def test_the_same_grid_is_untouched(device: Ops, nearest: bool) -> None:
    array = random(2, 3, 4, 5)
    assert np.array_equal(
        device.resample_affine(array, np.eye(4), (3, 4, 5), nearest=nearest), array
    )


def test_axes_are_moved_and_mirrored(device: Ops) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5)
    matrix = np.array([[0, 0, -1, 2], [1, 0, 0, 0], [0, 1, 0, 0]])  # out (H, W, -D)
    moved = device.resample_affine(array, matrix, (4, 5, 3), nearest=True)
    assert moved.dtype == np.uint8
    assert np.array_equal(moved[0], array[0].transpose(1, 2, 0)[..., ::-1])


@pytest.mark.parametrize("size", [(6, 9, 4), (13, 5, 20), (1, 1, 1)])
def test_a_stretched_grid_is_what_resample_makes(device: Ops, size: Size) -> None:
    tensor = random(2, 6, 9, 10)
    steps = [m / n for m, n in zip(tensor.shape[1:], size, strict=True)]
    matrix = np.column_stack([np.diag(steps), [(step - 1) / 2 for step in steps]])
    np.testing.assert_allclose(
        device.resample_affine(tensor, matrix, size),
        device.resample(tensor, size),
        atol=1e-5,
    )


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("size", [(5, 6, 7), (1, 1, 1), (13, 11, 37), (0, 3, 3)])
@pytest.mark.parametrize("shape", RAGGED[:4])
def test_agrees_with_the_reference(device: Ops, shape: Size, size: Size, nearest: bool) -> None:
    tensor, matrix = random(2, *shape), oblique(1, shape, (max(1, size[0]), *size[1:]))
    exact = reference.resample_affine(tensor, matrix, size, nearest, 3)
    np.testing.assert_allclose(
        device.resample_affine(tensor, matrix, size, nearest=nearest, outside=3), exact, atol=2e-6
    )
    assert not exact.size or not (exact == 3).all()


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_images_of_any_type_and_strides(device: Ops, dtype: str) -> None:
    image = restrided((random(2, 5, 7, 8) * 40).clip(0, 100).astype(dtype), (1, 0, 2), (-1, -1, 1))[
        ::-1
    ]
    matrix = oblique(2, (5, 7, 8), (6, 6, 6))
    out = device.resample_affine(image, matrix, (6, 6, 6))
    assert out.dtype == np.float32
    np.testing.assert_allclose(
        out, reference.resample_affine(image, matrix, (6, 6, 6)), rtol=1e-5, atol=1e-4
    )


def test_labels_keep_their_values(device: Ops) -> None:
    labels = np.random.default_rng(0).choice(np.uint8([0, 1, 2, 4]), (1, 9, 10, 11))
    matrix = oblique(3, (9, 10, 11), (12, 8, 9))
    out = device.resample_affine(labels, matrix, (12, 8, 9), nearest=True)
    assert out.dtype == np.uint8
    assert np.array_equal(out, reference.resample_affine(labels, matrix, (12, 8, 9), nearest=True))


def test_in_and_back(device: Ops) -> None:
    """A smooth image onto an oblique, anisotropic grid and back is what it was."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (32, 40, 36)), indexing="ij", sparse=True)
    image = np.exp(-4 * sum(axis**2 for axis in axes)).astype(np.float32)[None]
    c, s = np.cos(0.3), np.sin(0.3)
    there = np.eye(4)
    there[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.0, 0.5, 0.7])
    there[:3, 3] = np.array([15.5, 19.5, 17.5]) - there[:3, :3] @ [19.5, 39.5, 29.5]
    mapped = device.resample_affine(image, there, (40, 80, 60))
    back = device.resample_affine(mapped, np.linalg.inv(there), (32, 40, 36))
    inner = (slice(None), slice(6, 26), slice(8, 32), slice(6, 30))
    np.testing.assert_allclose(back[inner], image[inner], atol=0.02)


def test_same_bits_for_any_threads() -> None:
    tensor, matrix = random(2, 30, 40, 50), oblique(4, (30, 40, 50), (40, 50, 60))
    first = ops.resample_affine(tensor, matrix, (40, 50, 60), 1)
    assert all(
        np.array_equal(ops.resample_affine(tensor, matrix, (40, 50, 60), n), first)
        for n in N_THREADS
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-20, 20))
def test_linear_in_the_image(seed: int, power: int) -> None:
    a, b = random(1, 4, 5, 6, seed=seed), random(1, 4, 5, 6, seed=seed + 1)
    matrix, size = oblique(seed, (4, 5, 6), (5, 5, 5)), (5, 5, 5)
    one, other = (ops.resample_affine(x, matrix, size) for x in (a, b))
    np.testing.assert_allclose(ops.resample_affine(a + b, matrix, size), one + other, atol=1e-5)
    factor = np.float32(2.0**power)
    assert np.array_equal(ops.resample_affine(factor * a, matrix, size), factor * one)


def test_writes_into_a_given_tensor_of_any_strides() -> None:
    tensor, matrix = random(2, 3, 4, 5), oblique(5, (3, 4, 5), (4, 4, 4))
    buffer = np.zeros((4, 4, 4, 3), np.float32)
    out = buffer[..., :2].transpose(3, 0, 1, 2)
    assert ops.resample_affine(tensor, matrix, (4, 4, 4), out=out) is out
    assert np.array_equal(out, ops.resample_affine(tensor, matrix, (4, 4, 4)))
    assert not buffer[..., 2].any()


TENSOR = np.zeros((1, 2, 2, 2), np.float32)
BYTES = TENSOR.astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor": TENSOR[:, :, :0]}, r"tensor: expected at least one voxel, got shape \(1, 2, 0"),
        ({"out": TENSOR[..., [0, 0, 0]]}, r"out: expected \(2, 2, 2\) voxels, got shape"),
        ({"out": TENSOR[[0, 0]]}, r"out: expected 1 channels as in tensor, got 2"),
        ({"out": BYTES}, r"out: expected floats, or uint8 for the nearest voxels of a uint8"),
        ({"out": TENSOR.astype(np.float64)}, r"out: expected floats"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"tensor": TENSOR, "matrix": np.eye(4), "size": (2, 2, 2)} | change
    with pytest.raises(InputError, match=message):
        ops.resample_affine(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": np.eye(3)}, r"matrix: expected shape \(3, 4\) or \(4, 4\), got \(3, 3\)"),
        ({"matrix": np.full((3, 4), np.nan)}, r"matrix: expected finite numbers, got nan"),
        (
            {"tensor": BYTES, "nearest": True, "outside": -1},
            r"outside: expected 0 to 255 for a uint8 out, got -1",
        ),
        ({"size": (2, -2, 2)}, r"size: expected no negative sizes, got \(2, -2, 2\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"tensor": TENSOR, "matrix": np.eye(4), "size": (2, 2, 2)} | change
    with pytest.raises(OptionsError, match=message):
        ops.resample_affine(**arguments)
