"""What the bridge sees in its planes, and the bridge as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, ops
from fastbts.ops import Planes, PlaneWeights, reference
from tests.ops.devices import Ops
from tests.ops.views import RAGGED
from tests.tolerances import assert_close

Size = tuple[int, int, int]
RNG = np.random.default_rng(0)


def random(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def weights_of(n_r: int, n_c: int) -> PlaneWeights:
    return PlaneWeights(random(n_r, 2 * n_r, 3, 3), random(n_r), random(3, n_r), random(n_c, n_r))


def planes_of(shape: Size, n_channels: int, n_b: int = 2) -> Planes:
    d, h, w = shape
    return Planes(*(random(n_b, n_channels, *size) for size in ((h, w), (d, w), (d, h))))


def peer(planes: Planes, weights: PlaneWeights) -> list[NDArray[np.float32]]:
    """The same in NumPy float32, in the order the header promises: channel, row and column of the kernel."""
    seen = []
    for plane, view in zip(planes, weights.view, strict=True):
        n_rows, n_columns = plane.shape[2:]
        padded = np.pad(plane, ((0, 0), (0, 0), (1, 1), (1, 1)))
        hidden = np.zeros((len(plane), len(view), n_rows, n_columns), np.float32)
        hidden += (weights.bias + view)[:, None, None]
        for c, i, j in np.ndindex(*weights.conv.shape[1:]):
            window = padded[:, None, c, i : i + n_rows, j : j + n_columns]
            hidden += weights.conv[:, c, i, j][:, None, None] * window
        hidden = np.where(hidden > 0, hidden, np.float32(0.01) * hidden)
        out = np.zeros((len(plane), len(weights.expand), n_rows, n_columns), np.float32)
        for r in range(len(view)):
            out += weights.expand[:, r][:, None, None] * hidden[:, None, r]
        seen.append(out)
    return seen


def test_by_hand(device: Ops) -> None:
    """One channel whose mean is summed over 3 x 3; the view x is negative and thus a hundredth."""
    planes = Planes(
        *(
            np.array([[[[1, 2, 3], [4, 5, 6]], [[9, 9, 9], [9, 9, 9]]]], np.float32)
            for _ in range(3)
        )
    )
    conv = np.stack([np.ones((3, 3)), np.zeros((3, 3))])[None].astype(np.float32)
    weights = PlaneWeights(
        conv,
        np.array([1], np.float32),
        np.array([[0], [10], [-101]], np.float32),
        np.float32([[1], [2]]),
    )
    z, y, x = device.semantic_plane(planes, weights)
    sums = np.array([[12, 21, 16], [12, 21, 16]])
    assert np.array_equal(z[0, 0], sums + 1)
    assert np.array_equal(z[0, 1], 2 * (sums + 1))
    assert np.array_equal(y[0, 0], sums + 11)
    np.testing.assert_allclose(x[0, 0], 0.01 * (sums - 100), rtol=1e-6)


@pytest.mark.parametrize("shape", RAGGED)
def test_agrees_with_twin(device: Ops, shape: Size) -> None:
    planes, weights = planes_of(shape, 6), weights_of(3, 5)
    seen = device.semantic_plane(planes, weights)
    for result, near, exact in zip(
        seen, peer(planes, weights), reference.semantic_plane(planes, weights), strict=True
    ):
        assert_close(result, near, exact)


@pytest.mark.parametrize(
    ("shape", "n_r"), [((5, 9, 17), 5), ((61, 67, 71), 16)], ids=["one thread", "up to six"]
)
def test_same_bits_on_any_machine(shape: Size, n_r: int) -> None:
    """Every product and sum is rounded in the order of channels, rows, columns: neither instruction set nor threads matter."""
    planes, weights = planes_of(shape, 2 * n_r), weights_of(n_r, 6)
    wanted = peer(planes, weights)
    for n_threads in (1, 2, 3, 7, 0):
        for result, expected in zip(
            ops.semantic_plane(planes, weights, n_threads), wanted, strict=True
        ):
            assert np.array_equal(result, expected)


@pytest.mark.parametrize(("n_r", "n_c"), [(1, 1), (4, 0), (0, 3), (8, 33)])
def test_any_number_of_channels(device: Ops, n_r: int, n_c: int) -> None:
    planes, weights = planes_of((3, 4, 9), 2 * n_r), weights_of(n_r, n_c)
    for result, exact in zip(
        device.semantic_plane(planes, weights),
        reference.semantic_plane(planes, weights),
        strict=True,
    ):
        np.testing.assert_allclose(result, exact, atol=1e-4)


def test_bridge_agrees_with_the_network() -> None:
    """Project, plane and lift are what training.model computes."""
    torch = pytest.importorskip("torch")
    from training.model.bridge import SemanticBridge

    module, x = (
        SemanticBridge(12, 6, teacher_width=0).eval(),
        torch.from_numpy(random(2, 12, 5, 7, 9)),
    )
    with torch.inference_mode():
        for parameter in (module.view, module.expand.weight):
            parameter.copy_(torch.from_numpy(random(*parameter.shape)))
        arrays = [
            p.numpy().copy()
            for p in (module.plane.weight, module.plane.bias, module.view, module.expand.weight)
        ]
        reduced = module.reduce(x).numpy()
        exact = module.double()(x.double())[0].numpy()
    conv, bias, view, expand = arrays
    weights = PlaneWeights(conv, bias, view[:, :, 0, 0], expand[:, :, 0, 0])
    lifted = ops.semantic_lift(
        ops.semantic_plane(ops.semantic_project(reduced), weights), target=x.numpy().copy()
    )
    np.testing.assert_allclose(lifted, exact, atol=1e-5)  # `reduced` is float32
    twin = reference.semantic_lift(
        reference.semantic_plane(reference.semantic_project(reduced), weights), x.numpy()
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(twin, exact, atol=1e-5)
    assert np.abs(exact - x.numpy()).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv": np.zeros((3, 6, 3, 1), np.float32)},
            r"conv: expected shape \(3, 6, 3, 3\), got \(3, 6, 3, 1\)",
        ),
        ({"bias": np.zeros(4, np.float32)}, r"bias: expected shape \(3\), got \(4\)"),
        ({"view": np.zeros((2, 3), np.float32)}, r"view: expected shape \(3, 3\), got \(2, 3\)"),
        (
            {"expand": np.zeros((5, 2), np.float32)},
            r"expand: expected shape \(5, 3\), got \(5, 2\)",
        ),
        (
            {"y": np.zeros((2, 5, 4, 6), np.float32)},
            r"planes.y: expected shape \(2, 6, 4, 6\), got \(2, 5, 4, 6\)",
        ),
        (
            {"x": np.zeros((1, 6, 4, 5), np.float32)},
            r"planes.x: expected shape \(2, 6, 4, 5\), got \(1, 6, 4, 5\)",
        ),
        (
            {"z": np.zeros((2, 6, 5, 6))},
            r"planes.z: expected float32 \(B, 2R, \*, \*\), got float64",
        ),
        (
            {"z": np.zeros((2, 6))},
            r"planes: expected three times float32 \(B, 2R, \*, \*\), got shapes",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    planes, weights = planes_of((4, 5, 6), 6), weights_of(3, 5)
    planes = planes._replace(**{k: v for k, v in change.items() if k in Planes._fields})
    weights = weights._replace(**{k: v for k, v in change.items() if k in PlaneWeights._fields})
    with pytest.raises(InputError, match="semantic_plane: " + message):
        ops.semantic_plane(planes, weights)
