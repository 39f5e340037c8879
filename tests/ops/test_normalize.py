from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.views import IMAGE_TYPES, N_THREADS, RAGGED, noise_image, orientations
from tests.tolerances import assert_close


def full_box(volume: NDArray[Any]) -> ops.Box:
    d, h, w = volume.shape[1:]
    return (0, d), (0, h), (0, w)


def peer(
    volume: NDArray[Any], box: ops.Box, size: ops.Size, stats: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The same in plain NumPy float32, with the reference's statistics."""
    inside = volume[(slice(None), *(slice(*bounds) for bounds in box))]
    lo, hi, mean, std = stats.astype(np.float32).T[..., None, None, None]
    z = (inside.astype(np.float32).clip(lo, hi) - mean) / np.where(std > 0, std, 1)
    pad = [
        (0, 0),
        *(
            ((n - m) // 2, n - m - (n - m) // 2)
            for n, m in zip(size, inside.shape[1:], strict=True)
        ),
    ]
    return np.pad(np.where((inside != 0).any(axis=0), z, np.float32(0)), pad)


def check(
    device: Ops,
    volume: NDArray[Any],
    box: ops.Box,
    size: ops.Size,
    percentiles: tuple[float, float] = (0.1, 99.9),
    n_threads: int = 0,
) -> NDArray[np.float32]:
    tensor, stats = device.normalize(volume, box, size, percentiles, n_threads)
    exact, exact_stats = reference.normalize(volume, box, size, percentiles)
    assert np.array_equal(stats[:, :2], exact_stats[:, :2])  # percentiles are values of the image
    np.testing.assert_allclose(
        stats[:, 2:], exact_stats[:, 2:], rtol=1e-12
    )  # float64 sums of few voxels
    assert_close(tensor, peer(volume, box, size, exact_stats), exact)
    return tensor


def test_by_hand(device: Ops) -> None:
    volume = np.zeros((1, 1, 1, 7), np.int16)
    volume[0, 0, 0, 2:5] = 1, 2, 3
    tensor, stats = device.normalize(
        volume, ((0, 1), (0, 1), (2, 5)), (1, 1, 6), percentiles=(0, 100)
    )
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(
        tensor[0, 0, 0], [0, -np.sqrt(1.5), 0, np.sqrt(1.5), 0, 0], rtol=1e-7
    )  # (6 - 3) // 2 = 1
    np.testing.assert_allclose(stats, [[1, 3, 2, np.sqrt(2 / 3)]])


def test_clips_at_values_that_occur(device: Ops) -> None:
    volume = np.arange(1, 11, dtype=np.float32).reshape(1, 1, 1, 10)
    _, stats = device.normalize(volume, full_box(volume), (1, 1, 10), percentiles=(20, 90))
    clipped = [2, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    np.testing.assert_allclose(
        stats, [[2, 9, float(np.mean(clipped)), float(np.std(clipped))]], rtol=1e-15
    )


def test_a_voxel_is_brain_where_any_modality_is_non_zero(device: Ops) -> None:
    volume = np.array([[4, 0, 0, 2], [0, 0, 1, 3]], np.uint8).reshape(2, 1, 1, 4)
    tensor, stats = device.normalize(volume, full_box(volume), (1, 1, 4), percentiles=(0, 100))
    np.testing.assert_allclose(stats[:, 2], [2, 4 / 3])
    assert (tensor[:, 0, 0, 1] == 0).all()
    assert tensor[0, 0, 0, 2] < 0 < tensor[0, 0, 0, 0]


def test_constant_modality_becomes_zero(device: Ops) -> None:
    volume = noise_image((5, 6, 7), "f8")
    brain = (volume != 0).any(axis=0)
    volume[1, brain] = 0.1  # a float64 mean of many 0.1 is not 0.1
    tensor, stats = device.normalize(volume, full_box(volume), (5, 6, 7))
    assert stats[1].tolist() == [0.1, 0.1, 0.1, 0]
    assert not tensor[1].any()
    assert tensor[0].any()


def test_without_brain_all_is_zero(device: Ops) -> None:
    volume = noise_image((5, 6, 7), "i2")
    for box in (((0, 1), (0, 1), (0, 1)), ((2, 2), (0, 6), (0, 7)), ((0, 5), (0, 6), (3, 3))):
        tensor, stats = device.normalize(volume, box, (6, 6, 8))
        assert not tensor.any()
        assert not stats.any()


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", RAGGED)
@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_agrees_with_the_reference(
    device: Ops, dtype: str, shape: tuple[int, int, int], n_threads: int
) -> None:
    volume = noise_image(shape, dtype)
    d, h, w = shape
    check(device, volume, full_box(volume), (d, h + 1, w + 2), n_threads=n_threads)


@pytest.mark.parametrize("percentiles", [(0, 100), (0.1, 99.9), (1, 99), (33.3, 66.7), (50, 100)])
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
def test_percentiles_are_those_of_numpy(
    device: Ops, dtype: str, percentiles: tuple[float, float]
) -> None:
    volume = noise_image((11, 12, 13), dtype)
    check(device, volume, ((1, 10), (0, 12), (3, 11)), (16, 16, 16), percentiles)


def test_percentiles_are_those_of_numpy_for_any_number_of_voxels(device: Ops) -> None:
    for n in range(2, 250):
        values = np.arange(1, n + 1, dtype=np.uint16)
        for percentiles in ((0.1, 99.9), (10, 90), (100 / 3, 200 / 3)):
            _, stats = device.normalize(
                values.reshape(1, 1, 1, n), ((0, 1), (0, 1), (0, n)), (1, 1, n), percentiles
            )
            assert (
                stats[0, :2].tolist()
                == np.percentile(values, percentiles, method="inverted_cdf").tolist()
            )


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8", "f4", "f8"])
def test_wide_ranges_of_values(device: Ops, dtype: str) -> None:
    rng = np.random.default_rng(1)
    volume = noise_image((12, 13, 14), dtype)
    scale = 10.0 ** rng.integers(0, 6, volume.shape)
    volume = (volume * scale).astype(dtype)
    check(device, volume, full_box(volume), volume.shape[1:])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
def test_small_integers_of_any_range(device: Ops, dtype: str) -> None:
    limits, rng = np.iinfo(dtype), np.random.default_rng(2)
    for least, most in [(0, 3), (0, 64), (0, limits.max), (limits.min, limits.max)]:
        volume = rng.integers(least, most, (2, 7, 8, 9), dtype, endpoint=True)
        volume[0, 0, 0] = least, *[most] * 8
        check(device, volume, full_box(volume), volume.shape[1:])


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    for dtype in ("i2", "f4"):
        volume = noise_image((9, 18, 21), dtype)
        box, size = ((1, 9), (2, 17), (0, 20)), (8, 16, 24)
        expected = check(device, volume, box, size)
        for view in orientations(volume):
            tensor = check(device, view, box, size)
            assert dtype == "f4" or np.array_equal(tensor, expected)  # integers: the same bits, too


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_same_bits_for_any_threads_and_run(dtype: str) -> None:
    volume = noise_image((40, 50, 60), dtype) * (1 if dtype in ("u1", "i2") else 12345)
    runs = [
        ops.normalize(volume, full_box(volume), (48, 64, 64), n_threads=n)
        for n in (1, 1, 2, 3, 7, 0)
    ]
    for tensor, stats in runs[1:]:
        assert np.array_equal(tensor, runs[0][0])
        assert np.array_equal(stats, runs[0][1])


def test_many_callers_at_once() -> None:
    volume = noise_image((20, 30, 40), "f4")
    expected, _ = ops.normalize(volume, full_box(volume), (20, 30, 40))
    with ThreadPoolExecutor(4) as pool:
        tensors = pool.map(
            lambda _: ops.normalize(volume, full_box(volume), (20, 30, 40), n_threads=2)[0],
            range(12),
        )
        assert all(np.array_equal(tensor, expected) for tensor in tensors)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_non_finite_brain_is_refused(dtype: str, bad: float) -> None:
    volume = noise_image((5, 6, 7), dtype)
    volume[1, 2, 3, 3] = bad
    with pytest.raises(
        InputError, match=r"normalize: volume: modality 1 has NaN or infinite brain voxels"
    ):
        ops.normalize(volume, full_box(volume), (5, 6, 7))


def test_values_too_large_for_statistics_are_refused() -> None:
    volume = noise_image((5, 6, 7), "f8") * 1e200
    with pytest.raises(InputError, match=r"modality 0 .* too large for float64 statistics"):
        ops.normalize(volume, full_box(volume), (5, 6, 7))


@pytest.mark.parametrize(
    ("box", "size", "percentiles", "message"),
    [
        (
            ((0, 6), (0, 6), (0, 7)),
            (9, 9, 9),
            (0, 100),
            r"box: expected to be inside .* got \(0:6, 0:6, 0:7\)",
        ),
        (
            ((-1, 5), (0, 6), (0, 7)),
            (9, 9, 9),
            (0, 100),
            r"box: expected to be inside the volume of shape \(2, 5, 6, 7\)",
        ),
        (((3, 2), (0, 6), (0, 7)), (9, 9, 9), (0, 100), r"box: expected to be inside"),
        (
            ((0, 5), (0, 6), (0, 7)),
            (5, 6, 6),
            (0, 100),
            r"size: expected at least the box of \(5, 6, 7\), got \(5, 6, 6\)",
        ),
        (
            ((0, 5), (0, 6), (0, 7)),
            (5, 6, -7),
            (0, 100),
            r"size: expected no negative sizes, got \(5, 6, -7\)",
        ),
        (
            ((0, 5), (0, 6), (0, 7)),
            (5, 6, 7),
            (99, 1),
            r"percentiles: expected 0 <= lo < hi <= 100, got \(99, 1\)",
        ),
        (((0, 5), (0, 6), (0, 7)), (5, 6, 7), (0, 100.5), r"percentiles: expected"),
        (((0, 5), (0, 6), (0, 7)), (5, 6, 7), (np.nan, 99), r"percentiles: expected"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    box: ops.Box, size: tuple[int, int, int], percentiles: tuple[float, float], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        ops.normalize(noise_image((5, 6, 7), "i2"), box, size, percentiles)
