from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import BridgeWeights, reference
from tests.ops.devices import Ops
from tests.ops.views import N_THREADS, RAGGED, restrided
from tests.tolerances import assert_close

Size = tuple[int, int, int]
Arguments = dict[str, Any]


def example(shape: Size, n_r: int = 3, n_c: int = 5, n_b: int = 2) -> Arguments:
    rng = np.random.default_rng(0)

    def random(*size: int) -> NDArray[np.float32]:
        return rng.normal(size=size).astype(np.float32)

    conv, expand = random(n_r, 2 * n_r, 3, 3), random(n_c, n_r)
    weights = BridgeWeights(conv, random(n_r), random(3, n_r), expand)
    return {"x": random(n_b, n_c, *shape), "reduced": random(n_b, n_r, *shape), "weights": weights}


def peer(x: Any, reduced: Any, weights: BridgeWeights) -> Any:
    """The same in NumPy float32, in the header's order: channel, row and column of the kernel."""
    convolved = []
    for axis, axis_bias in zip((2, 3, 4), weights.axis_bias, strict=True):
        plane = np.concatenate([reduced.mean(axis), reduced.max(axis)], axis=1)
        n_rows, n_columns = plane.shape[2:]
        padded = np.pad(plane, ((0, 0), (0, 0), (1, 1), (1, 1)))
        hidden = np.zeros((len(plane), len(axis_bias), n_rows, n_columns), np.float32)
        hidden += (weights.bias + axis_bias)[:, None, None]
        for c, i, j in np.ndindex(*weights.conv.shape[1:]):
            part = padded[:, None, c, i : i + n_rows, j : j + n_columns]
            hidden += weights.conv[:, c, i, j][:, None, None] * part
        hidden = np.where(hidden > 0, hidden, np.float32(0.01) * hidden)
        out = np.zeros((len(plane), len(weights.expand), n_rows, n_columns), np.float32)
        for r in range(len(axis_bias)):
            out += weights.expand[:, r][:, None, None] * hidden[:, None, r]
        convolved.append(np.expand_dims(out, axis))
    z, y, x_plane = convolved
    return x + (z + y + x_plane) * np.float32(1 / 3)


def assert_near_reference(result: NDArray[np.float32], arguments: Arguments) -> None:
    assert_close(result, peer(**arguments), reference.semantic_bridge(**arguments))


def identity(scale: float = 1) -> BridgeWeights:
    """One channel: out = x + scale / 3 (the means along the three axes), where these are > 0."""
    conv = np.zeros((1, 2, 3, 3), np.float32)
    conv[0, 0, 1, 1] = scale
    one = np.ones((1, 1), np.float32)
    return BridgeWeights(conv, 0 * one[0], np.zeros((3, 1), np.float32), one)


def volume(*values: Any) -> NDArray[np.float32]:
    array = np.array(values, np.float32)
    return array.reshape(1, 1, *array.shape)


def test_means_by_hand(device: Ops) -> None:
    reduced = volume([[1, 2, 3], [4, 5, 9]])  # D 1, H 2, W 3
    lifted = device.semantic_bridge(0 * reduced, reduced, identity(3))
    along_d, along_h, along_w = reduced[0, 0, 0], [2.5, 3.5, 6], [[2], [6]]
    np.testing.assert_allclose(lifted[0, 0, 0], along_d + along_h + along_w, rtol=1e-6)


def test_maxima_of_negative_values(device: Ops) -> None:
    """A maximum of -5 in each plane, of which the slope leaves 0.05."""
    reduced = np.full((1, 1, 2, 3, 9), -5, np.float32)
    reduced[0, 0, 0, 0, 8] = -1e30
    weights = identity()
    weights.conv[...] = weights.conv[:, ::-1].copy()
    lifted = device.semantic_bridge(np.zeros_like(reduced), reduced, weights)
    np.testing.assert_allclose(lifted, -0.05, rtol=1e-6)


def test_convolution_by_hand(device: Ops) -> None:
    """Means summed over 3 x 3; the plane along W has a negative bias and is a hundredth."""
    reduced = volume([[1, 2, 3], [4, 5, 6]])
    conv = np.stack([np.ones((3, 3)), np.zeros((3, 3))])[None].astype(np.float32)
    axis_bias = np.array([[0], [10], [-101]], np.float32)
    weights = BridgeWeights(conv, np.ones(1, np.float32), axis_bias, np.float32([[3], [6]]))
    lifted = device.semantic_bridge(np.zeros((1, 2, 1, 2, 3), np.float32), reduced, weights)
    along_d = np.array([[12, 21, 16], [12, 21, 16]]) + 1
    along_h, along_w = np.array([6, 10.5, 8]) + 11, 0.01 * (np.array([[7], [7]]) - 100)
    np.testing.assert_allclose(lifted[0, 0, 0], along_d + along_h + along_w, rtol=1e-6)
    np.testing.assert_allclose(lifted[0, 1, 0], 2 * lifted[0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", RAGGED)
def test_agrees_with_reference(device: Ops, shape: Size, n_threads: int) -> None:
    arguments = example(shape)
    assert_near_reference(device.semantic_bridge(**arguments, n_threads=n_threads), arguments)


@pytest.mark.parametrize(("n_r", "n_c"), [(1, 1), (4, 0), (0, 3), (8, 33)])
def test_any_number_of_channels(device: Ops, n_r: int, n_c: int) -> None:
    arguments = example((3, 4, 9), n_r, n_c)
    exact = reference.semantic_bridge(**arguments)
    np.testing.assert_allclose(device.semantic_bridge(**arguments), exact, atol=1e-4)


def test_same_bits_for_any_threads_and_run() -> None:
    arguments = example((18, 20, 17), 8, 16)
    first = ops.semantic_bridge(**arguments, n_threads=1)
    for n_threads in (1, 2, 3, 7, 0):
        np.testing.assert_array_equal(ops.semantic_bridge(**arguments, n_threads=n_threads), first)


def test_agrees_with_the_network() -> None:
    torch = pytest.importorskip("torch")
    from training.model.bridge import SemanticBridge

    arguments = example((5, 7, 9), 6, 12)
    module, x = SemanticBridge(12, 6, teacher_width=0).eval(), torch.from_numpy(arguments["x"])
    conv, bias, axis_bias, expand = (torch.from_numpy(w) for w in arguments["weights"])
    with torch.inference_mode():
        module.plane.weight.copy_(conv)
        module.plane.bias.copy_(bias)
        module.view.copy_(axis_bias[:, :, None, None])
        module.expand.weight.copy_(expand[:, :, None, None])
        arguments["reduced"] = module.reduce(x).numpy()
        exact = module.double()(x.double())[0].numpy()
    np.testing.assert_allclose(ops.semantic_bridge(**arguments), exact, atol=1e-4)
    np.testing.assert_allclose(reference.semantic_bridge(**arguments), exact, atol=1e-5)
    assert np.abs(exact - arguments["x"]).max() > 0.1


def test_outer_axes_may_have_any_strides() -> None:
    arguments = example((5, 7, 8))
    expected = ops.semantic_bridge(**arguments)
    for name in ("x", "reduced"):
        arguments[name] = restrided(arguments[name], (1, 0, 2), (-1, -1, 1))
    buffer = np.full((2, 9, 5, 7, 8), 77, np.float32)
    assert ops.semantic_bridge(**arguments, out=buffer[:, 3:8]).base is buffer
    np.testing.assert_array_equal(buffer[:, 3:8], expected)
    assert (buffer[:, [0, 1, 2, 8]] == 77).all()


def test_may_write_in_place() -> None:
    arguments = example((5, 7, 8))
    expected = ops.semantic_bridge(**arguments)
    assert ops.semantic_bridge(**arguments, out=arguments["x"]) is arguments["x"]
    np.testing.assert_array_equal(arguments["x"], expected)


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv": zeros(3, 6, 3, 1)}, r"conv: expected shape \(3, 6, 3, 3\), got \(3, 6, 3, 1\)"),
        ({"bias": zeros(4)}, r"bias: expected shape \(3\), got \(4\)"),
        ({"axis_bias": zeros(2, 3)}, r"axis_bias: expected shape \(3, 3\), got \(2, 3\)"),
        ({"expand": zeros(5, 2)}, r"expand: expected shape \(5, 3\), got \(5, 2\)"),
        ({"x": zeros(2, 3)}, r"x: expected float32 \(B, C, D, H, W\), got float32 of shape \(2, 3"),
        ({"x": zeros(1, 1, 0, 2, 2)}, r"x: expected at least one voxel, got shape \(1, 1, 0, 2, 2"),
        (
            {"reduced": zeros(2, 3, 4, 5, 7)},
            r"reduced: expected shape \(2, 3, 4, 5, 6\), got \(2, 3, 4, 5, 7\)",
        ),
        ({"reduced": np.zeros((2, 3, 4, 5, 6))}, r"reduced: expected float32 .*, got float64"),
        ({"out": zeros(2, 5, 4, 5, 7)}, r"out: expected \(4, 5, 6\) voxels, got shape \(2, 5, 4,"),
        ({"out": zeros(2, 4, 4, 5, 6)}, r"out: expected shape \(2, 5, 4, 5, 6\), got \(2, 4, 4"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: Arguments, message: str) -> None:
    arguments = example((4, 5, 6))
    is_weight = change.keys() <= set(BridgeWeights._fields)
    changed = {"weights": arguments["weights"]._replace(**change)} if is_weight else change
    with pytest.raises(InputError, match="semantic_bridge: " + message):
        ops.semantic_bridge(**arguments | changed)


def test_negative_number_of_threads_is_refused() -> None:
    with pytest.raises(OptionsError, match="n_threads: expected 0"):
        ops.semantic_bridge(**example((2, 4, 5)), n_threads=-1)


def test_scratch_holds_both_kinds_of_planes() -> None:
    n_pixels = 5 * 6 + 4 * 6 + 4 * 5
    assert ops.semantic_bridge_scratch((2, 3, 4, 5, 6), 7) == 2 * (2 * 3 + 7) * n_pixels
