from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops, reference
from fastbts.ops import AttentionWeights
from tests.ops.views import N_THREADS, RAGGED, restrided
from tests.tolerances import assert_close

Size = tuple[int, int, int]


def example(shape: Size, n_hidden: int = 16, n_skip: int = 5, n_gate: int = 6, coarse: Size | None = None) -> dict[str, Any]:
    """Arguments of the op without `out`; similarity at a quarter of the resolution unless told."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    coarse = coarse or tuple(max(1, n // 4) for n in shape)  # type: ignore[assignment]
    weights = (random(n_hidden, n_skip), random(n_hidden, n_gate), random(n_hidden, 3), random(n_hidden), random(n_hidden))
    return {
        "skip": random(2, n_skip, *shape),
        "gate": random(2, n_gate, *shape),
        "similarity": random(2, 3, *coarse),  # type: ignore[misc]
        "weights": AttentionWeights(*weights, scale=0.7),
    }


def run(arguments: dict[str, Any], n_threads: int = 0) -> NDArray[np.float32]:
    out = np.full_like(arguments["skip"], 77)
    ops.semantic_attention(**arguments, out=out, n_threads=n_threads)
    return out


def peer(
    skip: NDArray[np.float32], gate: NDArray[np.float32], similarity: NDArray[np.float32], weights: AttentionWeights
) -> Any:
    """The same in NumPy float32."""
    up = np.stack([ops.resample(maps, skip.shape[2:]) for maps in similarity])
    hidden = weights.bias[:, None, None, None] + np.einsum("jc,bc...->bj...", weights.w_x, skip)
    hidden += np.einsum("jc,bc...->bj...", weights.w_g, gate) + np.einsum("jc,bc...->bj...", weights.w_s, up)
    activated = np.maximum(hidden, np.float32(0.01) * hidden)
    mask = 1 / (1 + np.exp(-np.einsum("j,bj...->b...", weights.w_a, activated)))
    return skip * (1 + np.float32(weights.scale) * (2 * mask[:, None] - 1))


def test_by_hand() -> None:
    """One hidden channel that is the skip itself: m = sigmoid(4 leaky_relu(x))."""
    skip = np.array([0, 1, -1, 50], np.float32).reshape(1, 1, 1, 1, 4)
    one, none = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    weights = AttentionWeights(one, none, none, none[0], 4 * one[0], scale=0.5)
    out = np.empty_like(skip)
    ops.semantic_attention(skip, skip, skip, weights, out)
    mask = [0.5, 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(0.04)), 1]
    np.testing.assert_allclose(
        out.ravel(), [x * (1 + 0.5 * (2 * m - 1)) for x, m in zip([0, 1, -1, 50], mask, strict=True)], 1e-6
    )


def test_scale_zero_changes_nothing() -> None:
    arguments = example((3, 4, 5))
    arguments["weights"] = arguments["weights"]._replace(scale=0.0)
    assert np.array_equal(run(arguments), arguments["skip"])


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [*RAGGED, (0, 4, 4)])
def test_agrees_with_twin(shape: Size, n_threads: int) -> None:
    arguments = example(shape)
    assert_close(run(arguments, n_threads), peer(**arguments), reference.semantic_attention(**arguments))


@pytest.mark.parametrize(("n_hidden", "n_skip", "n_gate"), [(1, 1, 1), (3, 2, 0), (16, 32, 33), (0, 2, 2)])
def test_any_number_of_channels(n_hidden: int, n_skip: int, n_gate: int) -> None:
    arguments = example((4, 8, 12), n_hidden, n_skip, n_gate)
    assert_close(run(arguments), peer(**arguments), reference.semantic_attention(**arguments))


@pytest.mark.parametrize("coarse", [(1, 1, 1), (4, 8, 12), (3, 5, 7), (5, 9, 13)])
def test_any_similarity_grid(coarse: Size) -> None:
    arguments = example((4, 8, 12), coarse=coarse)
    assert_close(run(arguments), peer(**arguments), reference.semantic_attention(**arguments))


def test_saturated_masks_stay_finite() -> None:
    arguments = example((2, 3, 40))
    arguments["weights"] = arguments["weights"]._replace(w_a=1000 * arguments["weights"].w_a)
    factor = run(arguments) / arguments["skip"]
    np.testing.assert_allclose(np.abs(factor - 1), 0.7, atol=0.05)


def test_nan_is_not_hidden_and_stays_in_its_voxel() -> None:
    arguments = example((2, 3, 9))
    expected = run(arguments)
    arguments["gate"][1, 0, 1, 2, 4] = np.nan
    expected[1, :, 1, 2, 4] = np.nan
    np.testing.assert_array_equal(run(arguments), expected)


def test_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    arguments = example((8, 12, 16))
    skip, gate, similarity = (torch.from_numpy(arguments[name]) for name in ("skip", "gate", "similarity"))
    w_x, w_g, w_s, bias, w_a = (torch.from_numpy(w) for w in arguments["weights"][:5])

    def conv(x: Any, weight: Any, bias: Any = None) -> Any:
        return torch.nn.functional.conv3d(x, weight[:, :, None, None, None], bias)

    up = torch.nn.functional.interpolate(similarity, size=skip.shape[2:], mode="trilinear", align_corners=False)
    hidden = torch.nn.functional.leaky_relu(conv(skip, w_x) + conv(gate, w_g) + conv(up, w_s, bias), 0.01)
    mask = torch.sigmoid(conv(hidden, w_a[None]))
    assert_close(run(arguments), (skip * (1 + 0.7 * (2 * mask - 1))).numpy(), reference.semantic_attention(**arguments))


def test_same_bits_for_any_threads_and_run() -> None:
    arguments = example((5, 6, 37))
    first = run(arguments, 1)
    assert all(np.array_equal(run(arguments, n_threads), first) for n_threads in (1, 2, 3, 7, 0))


def test_writes_into_a_larger_buffer_or_in_place() -> None:
    arguments = example((4, 5, 9))
    expected = run(arguments)
    buffer = np.full((2, 12, 4, 5, 9), 77, np.float32)
    ops.semantic_attention(**arguments, out=buffer[:, 7:])
    assert np.array_equal(buffer[:, 7:], expected)
    assert (buffer[:, :7] == 77).all()
    for name in ("skip", "gate", "similarity"):
        arguments[name] = restrided(arguments[name], (1, 0, 2), (-1, -1, 1))
    ops.semantic_attention(**arguments, out=arguments["skip"])
    assert np.array_equal(arguments["skip"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": np.zeros((2, 6, 4, 5, 5), np.float32)}, r"gate: expected shape \(2, 6, 4, 5, 6\), got \(2, 6, 4, 5, 5\)"),
        (
            {"similarity": np.zeros((1, 3, 2, 2, 2), np.float32)},
            r"similarity: expected 2 cases as in skip and at least one voxel",
        ),
        ({"similarity": np.zeros((2, 3, 0, 2, 2), np.float32)}, r"similarity: expected .* got shape \(2, 3, 0, 2, 2\)"),
        ({"similarity": np.zeros((2, 4, 1, 1, 1), np.float32)}, r"w_s: expected shape \(16, 4\), got \(16, 3\)"),
        ({"out": np.zeros((2, 4, 4, 5, 6), np.float32)}, r"out: expected shape \(2, 5, 4, 5, 6\), got \(2, 4, 4, 5, 6\)"),
        ({"w_x": np.zeros((16, 4), np.float32)}, r"w_x: expected shape \(16, 5\), got \(16, 4\)"),
        ({"w_g": np.zeros((15, 6), np.float32)}, r"w_g: expected shape \(16, 6\), got \(15, 6\)"),
        ({"bias": np.zeros(15, np.float32)}, r"bias: expected shape \(16\), got \(15\)"),
        ({"skip": np.zeros((2, 5, 4, 5, 6))}, r"skip: expected float32 \(B, C, D, H, W\), got float64"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = example((4, 5, 6))
    out = np.zeros_like(arguments["skip"])
    arguments["weights"] = arguments["weights"]._replace(**{k: v for k, v in change.items() if k in AttentionWeights._fields})
    arguments |= {"out": out} | {k: v for k, v in change.items() if k not in AttentionWeights._fields}
    with pytest.raises(InputError, match="semantic_attention: " + message):
        ops.semantic_attention(**arguments)
    assert not out.any()


def test_scale_must_be_finite() -> None:
    arguments = example((4, 5, 6))
    arguments["weights"] = arguments["weights"]._replace(scale=float("nan"))
    with pytest.raises(OptionsError, match=r"semantic_attention: scale: expected a finite number, got nan"):
        run(arguments)
