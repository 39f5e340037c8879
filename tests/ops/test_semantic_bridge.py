from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import Planes, PlaneWeights, reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, RAGGED, restrided
from tests.tolerances import assert_close

Size = tuple[int, int, int]


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def project_peer(tensor: NDArray[np.float32]) -> Planes:
    """The same in NumPy float32."""
    return Planes(
        *(np.concatenate([tensor.mean(axis), tensor.max(axis)], axis=1) for axis in (2, 3, 4))
    )


def planes_of(shape: Size, n_b: int = 2, n_c: int = 3) -> Planes:
    d, h, w = shape
    return Planes(random(n_b, n_c, h, w), random(n_b, n_c, d, w), random(n_b, n_c, d, h))


def lift_peer(planes: Planes) -> NDArray[np.float32]:
    return (planes.z[:, :, None] + planes.y[:, :, :, None] + planes.x[..., None]) * np.float32(
        1 / 3
    )


def test_project_by_hand(device: Ops) -> None:
    tensor = np.array([[[1, 2, 3], [4, 5, 9]]], np.float32).reshape(1, 1, 1, 2, 3)  # D 1, H 2, W 3
    z, y, x = device.semantic_project(tensor)
    assert z.tolist() == [
        [[[1, 2, 3], [4, 5, 9]], [[1, 2, 3], [4, 5, 9]]]
    ]  # one slice is its own mean and maximum
    assert y.tolist() == [[[[2.5, 3.5, 6]], [[4, 5, 9]]]]
    assert x.tolist() == [[[[2, 6]], [[3, 9]]]]


def test_lift_by_hand(device: Ops) -> None:
    z = np.array([[3, 6, 9], [0, 0, 0]], np.float32).reshape(1, 1, 2, 3)
    y = np.array([0, 3, 0], np.float32).reshape(1, 1, 1, 3)
    x = np.array([0, 30], np.float32).reshape(1, 1, 1, 2)
    lifted = device.semantic_lift(Planes(z, y, x))
    np.testing.assert_allclose(lifted[0, 0, 0], [[1, 3, 3], [10, 11, 10]], rtol=1e-6)
    again = device.semantic_lift(Planes(z, y, x), target=lifted)
    assert again is lifted
    np.testing.assert_allclose(lifted[0, 0, 0], [[2, 6, 6], [20, 22, 20]], rtol=1e-6)


@pytest.mark.parametrize("shape", RAGGED)
def test_project_agrees_with_twin(device: Ops, shape: Size) -> None:
    tensor = random(2, 3, *shape)
    planes = device.semantic_project(tensor)
    for result, peer, exact in zip(
        planes, project_peer(tensor), reference.semantic_project(tensor), strict=True
    ):
        assert_close(result, peer, exact)


@pytest.mark.parametrize("shape", [*RAGGED, (0, 3, 4)])
def test_lift_agrees_with_twin(device: Ops, shape: Size) -> None:
    planes = planes_of(shape)
    assert_close(device.semantic_lift(planes), lift_peer(planes), reference.semantic_lift(planes))
    target = random(2, 3, *shape)
    expected, exact = target + lift_peer(planes), reference.semantic_lift(planes, target)
    assert_close(device.semantic_lift(planes, target), expected, exact)


def test_same_bits_for_any_threads_and_run() -> None:
    """At a size that is worth five threads for either op, whose ranges end inside of cases and of channels."""
    tensor = random(2, 5, 41, 61, 67)
    first = ops.semantic_project(tensor, 1)
    lifted = ops.semantic_lift(first, n_threads=1)
    for n_threads in (1, 2, 3, 7, 0):
        planes = ops.semantic_project(tensor, n_threads)
        assert all(np.array_equal(a, b) for a, b in zip(planes, first, strict=True))
        assert np.array_equal(ops.semantic_lift(first, n_threads=n_threads), lifted)


def test_maxima_of_negative_and_infinite_values(device: Ops) -> None:
    tensor = np.full((1, 1, 2, 3, 9), -5, np.float32)
    tensor[0, 0, 0, 0, 8] = -np.inf
    z, y, x = device.semantic_project(tensor)
    assert (z[0, 1] == -5).all()
    assert (y[0, 1] == -5).all()
    assert (x[0, 1] == -5).all()


def test_lift_of_constant_projections_is_that_constant(device: Ops) -> None:
    means = [
        plane[:, :1].copy()
        for plane in device.semantic_project(np.full((1, 1, 5, 6, 7), 0.7, np.float32))
    ]
    np.testing.assert_allclose(device.semantic_lift(Planes(*means)), 0.7, rtol=1e-6)


def test_outer_axes_may_have_any_strides() -> None:
    tensor = random(2, 3, 5, 7, 8)
    view = restrided(tensor, (1, 0, 2), (-1, -1, 1))[:, ::-1]
    for got, wanted in zip(
        ops.semantic_project(view), ops.semantic_project(np.ascontiguousarray(view)), strict=True
    ):
        assert np.array_equal(got, wanted)
    buffer = np.zeros((2, 9, 5, 7, 8), np.float32)
    planes = planes_of((5, 7, 8))
    ops.semantic_lift(planes, buffer[:, 3:6])
    assert np.array_equal(buffer[:, 3:6], ops.semantic_lift(planes))
    assert not buffer[:, :3].any()
    assert not buffer[:, 6:].any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"semantic_project: tensor: expected float32 \(B, R, D, H, W\), got shape \(2, 3\)",
    ):
        ops.semantic_project(random(2, 3))
    with pytest.raises(
        InputError,
        match=r"semantic_project: tensor: expected at least one voxel, got shape \(1, 1, 0, 2, 2\)",
    ):
        ops.semantic_project(random(1, 1, 0, 2, 2))
    planes = planes_of((4, 5, 6))
    with pytest.raises(
        InputError,
        match=r"semantic_lift: y: expected shape \(2, 3, 4, 6\) as tensor has .* got \(2, 3, 3, 6\)",
    ):
        ops.semantic_lift(planes._replace(y=planes.y[:, :, :3]))
    with pytest.raises(
        InputError, match=r"semantic_lift: z: expected shape \(2, 3, 5, 7\) as tensor has"
    ):
        ops.semantic_lift(planes, random(2, 3, 4, 5, 7))
    with pytest.raises(
        OptionsError,
        match="semantic_lift: expected a target to add to, or out to write into, got both",
    ):
        ops.semantic_lift(planes, random(2, 3, 4, 5, 6), out=random(2, 3, 4, 5, 6))


def test_writes_into_given_arrays() -> None:
    tensor = random(2, 3, 4, 5, 6)
    out = Planes(*(np.full((2, 6, *size), 7, np.float32) for size in ((5, 6), (4, 6), (4, 5))))
    for plane, given, expected in zip(
        ops.semantic_project(tensor, out=out), out, ops.semantic_project(tensor), strict=True
    ):
        assert plane is given
        assert np.array_equal(plane, expected)
    volume = np.full((2, 6, 4, 5, 6), 7, np.float32)
    assert ops.semantic_lift(out, out=volume) is volume
    assert np.array_equal(volume, ops.semantic_lift(out))


def bridge_weights(n_r: int, n_c: int) -> PlaneWeights:
    return PlaneWeights(random(n_r, 2 * n_r, 3, 3), random(n_r), random(3, n_r), random(n_c, n_r))


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", RAGGED)
def test_bridge_agrees_with_twin(device: Ops, shape: Size, n_threads: int) -> None:
    reduced, weights, x = random(2, 3, *shape), bridge_weights(3, 5), random(2, 5, *shape)
    exact = reference.semantic_lift(
        reference.semantic_plane(reference.semantic_project(reduced), weights), x
    )  # type: ignore[arg-type]
    device.semantic_bridge(reduced, weights, x, n_threads)
    np.testing.assert_allclose(x, exact, rtol=1e-5, atol=1e-5)


def test_bridge_has_the_bits_of_its_steps_whatever_the_threads() -> None:
    reduced, weights, x = (
        random(1, 32, 18, 20, 18),
        bridge_weights(32, 64),
        random(1, 64, 18, 20, 18),
    )
    wanted = ops.semantic_lift(
        ops.semantic_plane(ops.semantic_project(reduced, 1), weights, 1), x.copy(), 1
    )
    for n_threads in (1, 2, 3, 8):
        for _ in range(20):  # a race would not show every time
            target = x.copy()
            ops.semantic_bridge(reduced, weights, target, n_threads)
            np.testing.assert_array_equal(target, wanted)


def test_bridge_refuses_what_does_not_fit() -> None:
    with pytest.raises(
        InputError, match=r"semantic_bridge: tensor: expected float32 \(B, R, D, H, W\)"
    ):
        ops.semantic_bridge(random(3, 4, 5), bridge_weights(3, 5), random(1, 5, 2, 4, 5))
    with pytest.raises(InputError, match="semantic_lift: z: expected shape"):
        ops.semantic_bridge(random(1, 3, 2, 4, 5), bridge_weights(3, 5), random(1, 5, 2, 4, 6))
    with pytest.raises(OptionsError, match="n_threads: expected 0"):
        ops.semantic_bridge(random(1, 3, 2, 4, 5), bridge_weights(3, 5), random(1, 5, 2, 4, 5), -1)
