"""The CUDA kernels around the network, emulated: memory orders, orders of blocks, extreme values.

Each is compared with the CPU op and with float64. `test_simt` has examples of every element type.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import ops
from fastbts.ops import reference
from tests.ops.devices import EmulatedDevice
from tests.ops.image_ops import stray_core_example
from tests.ops.views import IMAGE_TYPES, noise_image, orientations, restrided
from tests.tolerances import assert_close

SEEDS = range(3)
ORDERS = ((0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1))
"""Of D, H, W in memory, the slowest first: the last is along W, D, D, H."""

BACKWARDS = ((1, 1, 1), (-1, 1, -1))
SHAPES = ((4, 35, 37), (35, 4, 37), (1, 1, 70))
"""Longer than a tile of 32 x 32 along two axes, or one."""


def some_orientations(volume: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """All 48 of int16, six of other types: how memory is read does not depend on the type."""
    return islice(orientations(volume), None, None, 1 if volume.dtype == np.int16 else 9)


def full_box(volume: NDArray[Any]) -> ops.Box:
    d, h, w = volume.shape[1:]
    return (0, d), (0, h), (0, w)


def size_of(volume: NDArray[Any]) -> ops.Size:
    d, h, w = volume.shape[1:]
    return d, h, w


def check_normalize(
    volume: NDArray[Any],
    box: ops.Box | None = None,
    percentiles: tuple[float, float] = (0.1, 99.9),
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Tensor and stats of the emulated device, compared with the reference and the CPU."""
    box = box or full_box(volume)
    d, h, w = (end - begin for begin, end in box)
    given = (volume, box, (d + 2, h, w + 3), percentiles)
    tensor, stats = EmulatedDevice(seed=seed).normalize(*given)
    exact, exact_stats = reference.normalize(*given)
    assert np.array_equal(stats[:, :2], exact_stats[:, :2])
    np.testing.assert_allclose(stats[:, 2:], exact_stats[:, 2:], rtol=1e-12)
    on_cpu, cpu_stats = ops.normalize(*given)
    np.testing.assert_allclose(stats, cpu_stats, rtol=1e-12)
    if volume.dtype.itemsize <= 2:  # whole numbers are summed exactly
        assert np.array_equal(stats[:, :3], cpu_stats[:, :3])
    assert_close(tensor, on_cpu, exact)
    return tensor, stats


@pytest.mark.parametrize("steps", BACKWARDS)
@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_normalize_in_any_memory_order(
    dtype: str, shape: ops.Size, axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    volume = noise_image(shape, dtype, n_modalities=3)
    d, h, w = shape
    check_normalize(restrided(volume, axes, steps), ((0, d), (0, h), (1, w - 1)))


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_normalize_of_any_orientation(dtype: str) -> None:
    volume = noise_image((5, 6, 9), dtype)
    first, _ = check_normalize(volume)
    for seed, view in enumerate(some_orientations(volume)):
        tensor, _ = check_normalize(view, seed=seed)
        assert volume.dtype.itemsize > 2 or np.array_equal(tensor, first)


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_normalize_has_the_same_bits_for_any_order_of_blocks(dtype: str) -> None:
    volume = noise_image((7, 12, 40), dtype, n_modalities=3)
    results = [check_normalize(volume, seed=seed) for seed in SEEDS]
    for tensor, stats in results[1:]:
        assert np.array_equal(tensor, results[0][0])
        assert np.array_equal(stats, results[0][1])


def brain_of(*images: Any, dtype: str) -> NDArray[Any]:
    """A volume (M, 1, 1, W) of these rows."""
    return np.array(images).astype(dtype)[:, None, None]


EXTREMES = {
    "i1": [-128, 127, -1, 0, 1],
    "u1": [0, 255, 128, 1],
    "i2": [-32768, 32767, -1025, -1024, 7167, 7168, 0],
    "u2": [65535, 1, 0, 8191, 8192, 32768],
    "i4": [-(2**31), 2**31 - 1, 0, 1, -1],
    "u4": [2**32 - 1, 1, 0, 2**31],
    "i8": [-(2**62), 2**62, 0, 3],
    "u8": [2**63, 1, 0, 7],
    "f4": [-3e38, 3e38, 1e-45, -1e-45, -0.0, 0.0, 1.5],
    "f8": [-1e150, 1e150, 5e-324, -5e-324, -0.0, 0.0, 1.5],
}


@pytest.mark.parametrize("percentiles", [(0, 100), (10, 75), (49, 51)])
@pytest.mark.parametrize("dtype", IMAGE_TYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_normalize_of_extreme_values(
    dtype: str, percentiles: tuple[float, float], seed: int
) -> None:
    """Ends of the type and of the bins in shared memory, zeros of both signs, denormals."""
    row = np.random.default_rng(seed).choice(np.array(EXTREMES[dtype]).astype(dtype), 150)
    check_normalize(brain_of(row, row[::-1], dtype=dtype), None, percentiles, seed)


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_normalize_of_denormals(dtype: str) -> None:
    tiny = {"f4": 1e-44, "f8": 2e-322}.get(dtype, 1)
    check_normalize(brain_of([tiny, 3 * tiny, 2 * tiny], [tiny, 0, 0], dtype=dtype))


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_normalize_of_one_voxel_and_of_equal_ones(dtype: str) -> None:
    """Neither has a spread, so they become zero."""
    for volume in (brain_of([0, 9, 0], dtype=dtype), brain_of([5] * 99, [7] * 99, dtype=dtype)):
        tensor, stats = check_normalize(volume)
        assert not tensor.any()
        assert not stats[:, 3].any()


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "f4", "f8"])
def test_normalize_of_negative_values(dtype: str) -> None:
    check_normalize(-np.abs(noise_image((3, 5, 40), dtype)), percentiles=(5, 95))


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_normalize_of_an_outlier_keeps_its_accuracy(dtype: str) -> None:
    """Far from all other values, first or last: a sum of squares must not cancel out."""
    row = np.r_[30000, 3 + np.arange(400) % 2, -30000]
    check_normalize(brain_of(row, row[::-1], dtype=dtype), percentiles=(0, 100))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_normalize_of_values_that_are_not_finite(dtype: str, bad: float) -> None:
    """Mean and std of that modality are NaN; the other one is as if alone."""
    volume = noise_image((4, 5, 6), "f4").astype(dtype)
    volume[1, 2, 2, 3] = bad
    tensor, stats = EmulatedDevice().normalize(volume, full_box(volume), size_of(volume))
    assert np.isnan(stats[1, 2:]).all()
    exact, exact_stats = reference.normalize(volume[:1], full_box(volume), size_of(volume))
    np.testing.assert_allclose(stats[:1], exact_stats, rtol=1e-12)
    np.testing.assert_allclose(tensor[:1], exact, atol=1e-6)


def test_normalize_of_half_floats() -> None:
    volume = noise_image((4, 9, 35), "f4").astype(np.float16)
    for view in some_orientations(volume):
        tensor, stats = EmulatedDevice().normalize(view, full_box(view), size_of(view))
        exact, exact_stats = reference.normalize(view, full_box(view), size_of(view))
        np.testing.assert_allclose(stats, exact_stats, rtol=1e-12)
        np.testing.assert_allclose(tensor, exact, atol=1e-6)


def test_normalize_of_many_modalities() -> None:
    check_normalize(noise_image((2, 3, 5), "i2", n_modalities=9))
    check_normalize(noise_image((2, 3, 5), "f4", n_modalities=9))


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_brain_box_of_any_orientation(dtype: str) -> None:
    volume = noise_image((4, 6, 35), dtype, n_modalities=5)
    volume[:, :1] = volume[:, :, 4:] = volume[..., :2] = 0
    if dtype[0] == "f":
        volume[:, 0, 0, 0] = np.nan, -np.inf, -0.0, 1e-45, 0
    bounds, *counts = reference.brain_box(volume)
    for seed, view in enumerate(some_orientations(volume)):
        box = EmulatedDevice(seed=seed).brain_box(view)
        assert box.bounds == bounds
        assert [box.n_brain, box.n_nonfinite, box.n_nonzero] == counts


def test_brain_box_of_one_voxel_anywhere() -> None:
    for voxel in np.ndindex(2, 2, 35):
        volume = np.zeros((1, 2, 2, 35), np.int16)
        volume[0][voxel] = -1
        box = EmulatedDevice().brain_box(volume.transpose(0, 3, 1, 2))
        d, h, w = ((i, i + 1) for i in voxel)
        assert (box.bounds, box.n_brain) == ((w, d, h), 1)


@pytest.mark.parametrize("size", [(3, 9, 40), (2, 5, 4090), (1, 4095, 1), (7, 33, 0)])
def test_resample_with_and_without_tables(size: ops.Size) -> None:
    """Up to 4096 points along the three axes together have tables of taps."""
    tensor = np.random.default_rng(0).normal(size=(2, 4, 7, 9)).astype(np.float32)
    result = EmulatedDevice(seed=1).resample(tensor, size)
    assert np.array_equal(result, ops.resample(tensor, size))


@pytest.mark.parametrize("steps", BACKWARDS)
@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("to", ORDERS)
@pytest.mark.parametrize("nearest", [True, False])
def test_resample_affine_in_any_memory_order(
    nearest: bool, to: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    """Axes of out run along any of the tensor's."""
    volume = restrided(noise_image((4, 34, 36), "i2"), axes, steps)
    matrix = np.zeros((3, 4))
    matrix[list(to), range(3)] = 0.9, -1.1, 1.0
    matrix[:, 3] = np.where(matrix.sum(axis=1) < 0, np.array(volume.shape[1:]), 0.2)
    given = (volume, matrix, (5, 37, 35))
    result = EmulatedDevice(seed=2).resample_affine(*given, nearest=nearest)
    assert np.array_equal(result, ops.resample_affine(*given, nearest=nearest))
    assert result.any()


def test_resample_affine_of_a_tensor_too_spread_for_32_bits() -> None:
    """One voxel along D, whose stride is beyond them."""
    volume = noise_image((1, 5, 9), "f4")
    spread = np.lib.stride_tricks.as_strided(
        volume, volume.shape, (2**40, 2**40, *volume.strides[2:])
    )[:1]
    given = (np.eye(3, 4), (1, 5, 9))
    result = EmulatedDevice().resample_affine(spread, *given)
    assert np.array_equal(result, ops.resample_affine(volume[:1], *given))


@pytest.mark.parametrize("steps", BACKWARDS)
@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_label_in_any_memory_order(
    seed: int, axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 38, 40)).astype(np.float32)
    logits[0, 1, 2, 3], logits[1, 0, 0, 5], logits[2, 0, 1, 4] = np.nan, np.inf, -0.0
    given = ((0, 1, 3), ((1, 5), (2, 37), (0, 36)), (0.3, 0.5, 0.6), (2, 1, 4))
    on_cpu = np.full((6, 40, 37), 9, np.uint8)
    labels = restrided(on_cpu.copy(), axes, steps)
    counts = EmulatedDevice(seed=seed).label(logits, *given, labels)
    assert counts == ops.label(logits, *given, on_cpu)
    assert np.array_equal(labels, on_cpu)


@pytest.mark.parametrize("steps", BACKWARDS)
@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("density", [0.07, 0.2, 1.0])
def test_components_in_any_memory_order(
    density: float, axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    rng, box = np.random.default_rng(1), ((0, 5), (1, 9), (0, 11))
    on_cpu = (rng.random((5, 10, 11)) < density) * rng.integers(1, 5, (5, 10, 11), np.uint8)
    labels = restrided(on_cpu.copy(), axes, steps)
    assert EmulatedDevice(seed=3).components(labels, box, 4) == ops.components(on_cpu, box, 4)
    assert np.array_equal(labels, on_cpu)


@pytest.mark.parametrize("steps", BACKWARDS)
@pytest.mark.parametrize("axes", ORDERS)
def test_stray_core_in_any_memory_order(axes: tuple[int, ...], steps: tuple[int, ...]) -> None:
    box = ((0, 5), (1, 9), (0, 11))
    on_cpu = stray_core_example(np.random.default_rng(0), (5, 10, 11), "")["labels"]
    labels = restrided(on_cpu.copy(), axes, steps)
    expected = ops.stray_core(on_cpu, box, (2, 1, 4), 1)
    assert expected.n_changed > 0
    assert EmulatedDevice(seed=3).stray_core(labels, box, (2, 1, 4), 1) == expected
    assert np.array_equal(labels, on_cpu)


@pytest.mark.parametrize("n_windows", [0, 1, 31, 32, 33, 70])
def test_blend_of_many_windows(n_windows: int) -> None:
    """More than the lanes of a warp, which know one each; some cover nothing."""
    rng = np.random.default_rng(n_windows)
    logits = rng.normal(size=(n_windows, 2, 2, 3, 8)).astype(np.float32)
    origins = (rng.integers(-9, 45, (n_windows, 3)) // (8, 8, 1)).astype(np.int32)
    wd, wh, ww = (rng.random((n_windows, n), np.float32) for n in (2, 3, 8))
    on_cpu = rng.normal(size=(2, 4, 5, 40)).astype(np.float32)
    total = on_cpu.copy()
    EmulatedDevice(seed=4).blend(logits, origins, (wd, wh, ww), total)
    ops.blend(logits, origins, (wd, wh, ww), on_cpu)
    assert np.array_equal(total, on_cpu)
