from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import DeviceError, InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import put
from tests.ops.op import Arguments
from tests.ops.registry import OPS
from tests.ops.views import N_THREADS, restrided

SAME = np.eye(3, 4)[None]
SIZE = (5, 6, 7)


def grid(size: ops.Size) -> NDArray[np.float32]:
    """Centres of all voxels."""
    return np.ascontiguousarray(np.indices(size, np.float32).reshape(3, -1).T)


def example(n: int = 500, seed: int = 0) -> Arguments:
    """Points of noise, and an image that follows it."""
    rng = np.random.default_rng(seed)
    moving = rng.integers(0, 256, SIZE).astype(np.uint8)
    points = rng.uniform(-1, 8, (n, 3)).astype(np.float32)
    values = rng.integers(0, 256, n).astype(np.uint8)
    return {"points": points, "values": values, "moving": moving, "maps": SAME}


def test_two_tissues_by_hand() -> None:
    """Each tells the other: 2. Every combination equally often: nothing, 1."""
    values = np.array([0, 0, 255, 255], np.uint8)
    for line, expected in (([255, 255, 0, 0], 2), ([0, 255, 0, 255], 1)):
        moving = np.array(line, np.uint8).reshape(1, 1, 4)
        nmi, inside = ops.mutual_information(grid(moving.shape), values, moving, SAME)[0]
        assert (nmi, inside) == (pytest.approx(expected, abs=1e-12), 1)


def test_a_value_between_two_bins_counts_in_both() -> None:
    """A quarter of a bin above the first: joint counts 3/4 and 1/4, twice."""
    moving = np.array([[[0, 255]]], np.uint8)
    points = np.array([[0, 0, 0.25 / 31], [0, 0, 0.25 / 31]], np.float32)
    nmi = ops.mutual_information(points, np.array([0, 255], np.uint8), moving, SAME)[0, 0]
    h = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert nmi == pytest.approx((np.log(2) + h) / (np.log(2) + h), abs=1e-9)


def test_contrast_does_not_matter() -> None:
    moving = np.random.default_rng(0).choice([0, 74, 181, 255], SIZE).astype(np.uint8)
    other = (moving.ravel() * 93 + 7).astype(np.uint8)
    aligned, reversed_ = (
        ops.mutual_information(grid(SIZE), values, moving, SAME)[0, 0]
        for values in (other, other[::-1].copy())
    )
    assert aligned > 1.8
    assert reversed_ < 1.1


def test_points_beyond_the_faces_are_left_out() -> None:
    """The image reaches half a voxel beyond its outermost centres."""
    points = np.zeros((4, 3), np.float32)
    points[:, 2] = -0.6, -0.4, 2.4, 2.6
    moving, values = np.zeros((1, 1, 3), np.uint8), np.zeros(4, np.uint8)
    assert ops.mutual_information(points, values, moving, SAME).tolist() == [[1, 0.5]]


def test_no_point_inside() -> None:
    given = example() | {"points": np.full((500, 3), 99, np.float32)}
    assert ops.mutual_information(**given).tolist() == [[1, 0]]
    empty = given | {"points": given["points"][:0], "values": given["values"][:0]}
    assert ops.mutual_information(**empty).tolist() == [[1, 0]]


@pytest.mark.parametrize("n", [1, 500, 40_000])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_twin(n: int, order: tuple[int, int, int]) -> None:
    given = example(n) | {"maps": OPS["mutual_information"].arguments(n, SIZE)["maps"]}
    expected = reference.mutual_information(**given)
    given["moving"] = restrided(given["moving"], order, (-1, 1, 1))
    np.testing.assert_allclose(ops.mutual_information(**given), expected, rtol=0, atol=1e-12)


def test_threads_change_no_bit() -> None:
    given = example(50_000) | {"maps": np.repeat(SAME, 5, axis=0)}
    results = {ops.mutual_information(**given, n_threads=n).tobytes() for n in N_THREADS}
    assert len(results) == 1


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("points", np.zeros((500, 2), np.float32), r"points: expected shape \(N, 3\)"),
        ("points", np.zeros((500, 3)), r"points: expected float32 \(N, 3\), got float64"),
        ("values", np.zeros(3, np.uint8), "values: expected one for each of 500 points, got 3"),
        ("moving", np.zeros((0, 2, 2), np.uint8), "moving: expected at least one voxel"),
        ("moving", np.zeros((2, 2, 2), np.int16), "moving: expected uint8"),
        ("maps", np.eye(4)[None], r"maps: expected shape \(K, 3, 4\), got \(1, 4, 4\)"),
        ("out", np.zeros((2, 2)), r"out: expected shape \(1, 2\), got \(2, 2\)"),
    ],
)
def test_wrong_arrays_are_refused(name: str, bad: Any, message: str) -> None:
    with pytest.raises(InputError, match="mutual_information: " + message):
        ops.mutual_information(**example() | {name: bad})


def test_too_many_points_are_refused() -> None:
    points = np.broadcast_to(np.zeros(3, np.float32), (2**24, 3))
    with pytest.raises(InputError, match=r"expected shape \(N, 3\) with N < 16777216"):
        ops.mutual_information(**example() | {"points": points})


def test_maps_that_are_not_finite_are_refused() -> None:
    with pytest.raises(OptionsError, match="maps: expected finite numbers, got nan"):
        ops.mutual_information(**example() | {"maps": SAME * np.nan})


@pytest.mark.usefixtures("first_cuda_device")
def test_arrays_on_a_device_are_refused() -> None:
    given = example() | {"out": np.empty((1, 2))}
    there = {name: put(array) for name, array in given.items()}
    with pytest.raises(DeviceError, match="expected arrays on the CPU, got them on cuda:0; there"):
        ops.mutual_information(**there)
