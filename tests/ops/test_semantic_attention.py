from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import AttentionWeights, reference
from tests.ops.devices import Ops, on
from tests.ops.views import N_THREADS, RAGGED, restrided
from tests.tolerances import assert_close

Size = tuple[int, int, int]
ON_CPU = on("cpu")


def example(
    below: Size, n_hidden: int = 16, n_skip: int = 5, n_below: int = 6, coarse: Size | None = None
) -> dict[str, Any]:
    """Arguments of the op; `below` is half the skip's size, the similarity has half of that."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    coarse = coarse or tuple(max(1, n // 2) for n in below)  # type: ignore[assignment]
    w_x, bias, w_g = random(n_hidden, n_below) / 4, random(n_hidden), random(n_hidden, n_below) / 4
    return {
        "skip": random(2, n_skip, *(2 * n for n in below)),
        "encoded": random(2, n_below, *below),
        "decoded": random(2, n_below, *below),
        "similarity": random(2, 3, *coarse),  # type: ignore[misc]
        "weights": AttentionWeights(
            w_x, bias, w_g, random(n_hidden, 3), random(n_hidden, 2, 2, 2) / 4, strength=0.7
        ),
    }


def run(arguments: dict[str, Any], n_threads: int = 0, device: Ops = ON_CPU) -> Any:
    return device.semantic_attention(**arguments, n_threads=n_threads)


def peer(skip: Any, encoded: Any, decoded: Any, similarity: Any, weights: AttentionWeights) -> Any:
    """The same in NumPy float32."""
    up = np.stack([ops.resample(maps, encoded.shape[2:]) for maps in similarity])
    hidden = weights.bias[:, None, None, None] + np.einsum("jc,bc...->bj...", weights.w_x, encoded)
    hidden += np.einsum("jc,bc...->bj...", weights.w_g, decoded) + np.einsum(
        "jc,bc...->bj...", weights.w_s, up
    )
    activated = np.maximum(hidden, np.float32(0.01) * hidden)
    children = np.einsum("jxyz,bjdhw->bdxhywz", weights.w_a, activated).reshape(
        len(skip), 1, *skip.shape[2:]
    )
    with np.errstate(over="ignore"):
        mask = 1 / (1 + np.exp(-children))
    return skip * (1 + np.float32(weights.strength) * (2 * mask - 1))


def test_by_hand(device: Ops) -> None:
    """One hidden channel, of value 2 or -100: children get m = sigmoid(w_a h), h = 2 or -1."""
    skip = np.ones((1, 1, 2, 2, 4), np.float32)
    encoded = np.array([1, -101], np.float32).reshape(1, 1, 1, 1, 2)
    one = np.ones((1, 1), np.float32)
    w_a = np.array([0, 1, 2, 3, -1, -2, 50, -50], np.float32).reshape(1, 2, 2, 2)
    weights = AttentionWeights(one, one[0], 0 * one, 0 * one, w_a, strength=0.5)
    out = device.semantic_attention(skip, encoded, encoded, encoded, weights)
    for first, h in ((0, 2), (2, -1)):
        expected = [1 + 0.5 * (2 / (1 + np.exp(-float(w) * h)) - 1) for w in w_a.ravel()]
        np.testing.assert_allclose(out[..., first : first + 2].ravel(), expected, 1e-6)


def test_strength_zero_changes_nothing(device: Ops) -> None:
    arguments = example((3, 4, 5))
    arguments["weights"] = arguments["weights"]._replace(strength=0.0)
    assert np.array_equal(run(arguments, device=device), arguments["skip"])


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("below", [*RAGGED[:-1], (3, 17, 33), (0, 4, 4)])
def test_agrees_with_reference(device: Ops, below: Size, n_threads: int) -> None:
    arguments = example(below)
    assert_close(
        run(arguments, n_threads, device),
        peer(**arguments),
        reference.semantic_attention(**arguments),
    )


@pytest.mark.parametrize(
    ("n_hidden", "n_skip", "n_below"), [(1, 1, 1), (3, 2, 0), (16, 32, 33), (0, 2, 2)]
)
def test_any_number_of_channels(device: Ops, n_hidden: int, n_skip: int, n_below: int) -> None:
    arguments = example((2, 4, 6), n_hidden, n_skip, n_below)
    assert_close(
        run(arguments, device=device), peer(**arguments), reference.semantic_attention(**arguments)
    )


@pytest.mark.parametrize("coarse", [(1, 1, 1), (4, 8, 12), (3, 5, 7), (5, 9, 13)])
def test_any_similarity_grid(device: Ops, coarse: Size) -> None:
    arguments = example((4, 8, 12), coarse=coarse)
    assert_close(
        run(arguments, device=device), peer(**arguments), reference.semantic_attention(**arguments)
    )


def test_saturated_masks_stay_finite(device: Ops) -> None:
    arguments = example((2, 3, 40))
    arguments["weights"] = arguments["weights"]._replace(
        w_a=np.float32(1e6) * arguments["weights"].w_a
    )
    factor = run(arguments, device=device) / arguments["skip"]
    np.testing.assert_allclose(np.abs(factor - 1), 0.7, atol=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_values_are_not_hidden_and_stay_in_their_voxel(device: Ops, value: float) -> None:
    arguments = example((2, 3, 9), n_hidden=3)
    expected = run(arguments, device=device)
    arguments["encoded"][1, 0, 1, 2, 4] = value
    result = run(arguments, device=device)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(
            result[1, :, 2:, 4:, 8:10], peer(**arguments)[1, :, 2:, 4:, 8:10], rtol=1e-6
        )
    result[1, :, 2:, 4:, 8:10] = expected[1, :, 2:, 4:, 8:10]
    np.testing.assert_array_equal(result, expected)


def test_agrees_with_the_network() -> None:
    """In float32 the op is as near to the float64 module as torch is."""
    torch = pytest.importorskip("torch")
    from training.model.attention import SemanticAttention

    arguments, torch_args = example((4, 8, 6), coarse=(2, 4, 3)), {}
    module = SemanticAttention(6, 16, n_regions=3, scale=2)
    weights = arguments["weights"]
    targets = (
        module.encoded.weight,
        module.encoded.bias,
        module.decoded.weight,
        module.map.weight,
        module.gate.weight,
    )
    with torch.inference_mode():
        for target, value in zip(targets, weights[:5], strict=True):
            target.copy_(torch.from_numpy(value).reshape(target.shape))
        module.strength.fill_(weights.strength)
        torch_args = {
            name: torch.from_numpy(arguments[name])
            for name in ("skip", "encoded", "decoded", "similarity")
        }
        single = module(**torch_args).numpy()
        exact = module.double()(**{name: x.double() for name, x in torch_args.items()}).numpy()
    np.testing.assert_allclose(
        reference.semantic_attention(**arguments), exact, atol=1e-7
    )  # strength is rounded to float32
    assert_close(run(arguments), single, exact)
    assert np.abs(exact - arguments["skip"]).max() > 0.1


def test_without_similarity(device: Ops) -> None:
    arguments = example((4, 5, 9))
    arguments["similarity"] = np.zeros((2, 0, 1, 1, 1), np.float32)
    arguments["weights"] = arguments["weights"]._replace(w_s=np.zeros((16, 0), np.float32))
    assert_close(
        run(arguments, device=device), peer(**arguments), reference.semantic_attention(**arguments)
    )


def test_same_bits_for_any_threads_and_run() -> None:
    arguments = example((5, 19, 37))
    first = run(arguments, 1)
    assert all(np.array_equal(run(arguments, n_threads), first) for n_threads in (1, 2, 3, 7, 0))


def test_writes_into_a_larger_buffer_or_in_place() -> None:
    arguments = example((4, 5, 9))
    expected = run(arguments)
    buffer = np.full((2, 12, 8, 10, 18), 77, np.float32)
    ops.semantic_attention(**arguments, out=buffer[:, 7:])
    assert np.array_equal(buffer[:, 7:], expected)
    assert (buffer[:, :7] == 77).all()
    for name in ("skip", "encoded", "decoded", "similarity"):
        arguments[name] = restrided(arguments[name], (1, 0, 2), (-1, -1, 1))
    ops.semantic_attention(**arguments, out=arguments["skip"])
    assert np.array_equal(arguments["skip"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"out": np.zeros((2, 5, 8, 10, 11), np.float32)},
            r"out: expected \(8, 10, 12\) voxels, got shape \(2, 5, 8, 10, 11\)",
        ),
        (
            {"skip": np.zeros((2, 5, 8, 10, 11), np.float32)},
            r"skip: expected shape \(2, 5, 8, 10, 12\), got \(2, 5, 8, 10, 11\)",
        ),
        (
            {"decoded": np.zeros((2, 6, 4, 5, 5), np.float32)},
            r"decoded: expected shape \(2, 6, 4, 5, 6\), got \(2, 6, 4, 5, 5\)",
        ),
        (
            {"similarity": np.zeros((1, 3, 2, 2, 2), np.float32)},
            r"similarity: expected 2 cases as in skip and at least one voxel",
        ),
        (
            {"similarity": np.zeros((2, 3, 0, 2, 2), np.float32)},
            r"similarity: expected .* got shape \(2, 3, 0, 2, 2\)",
        ),
        (
            {"similarity": np.zeros((2, 4, 1, 1, 1), np.float32)},
            r"w_s: expected shape \(16, 4\), got \(16, 3\)",
        ),
        (
            {"out": np.zeros((2, 4, 8, 10, 12), np.float32)},
            r"out: expected shape \(2, 5, 8, 10, 12\), got \(2, 4, 8, 10, 12\)",
        ),
        ({"w_x": np.zeros((16, 5), np.float32)}, r"w_x: expected shape \(16, 6\), got \(16, 5\)"),
        ({"w_g": np.zeros((15, 6), np.float32)}, r"w_g: expected shape \(16, 6\), got \(15, 6\)"),
        ({"bias": np.zeros(15, np.float32)}, r"bias: expected shape \(16\), got \(15\)"),
        (
            {"w_a": np.zeros((16, 2, 2, 1), np.float32)},
            r"w_a: expected shape \(16, 2, 2, 2\), got \(16, 2, 2, 1\)",
        ),
        (
            {"skip": np.zeros((2, 5, 8, 10, 12))},
            r"skip: expected float32 \(B, C, D, H, W\), got float64",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = example((4, 5, 6))
    arguments["weights"] = arguments["weights"]._replace(
        **{k: v for k, v in change.items() if k in AttentionWeights._fields}
    )
    arguments |= {k: v for k, v in change.items() if k not in AttentionWeights._fields}
    with pytest.raises(InputError, match="semantic_attention: " + message):
        ops.semantic_attention(**arguments)


def test_strength_must_be_finite() -> None:
    arguments = example((4, 5, 6))
    arguments["weights"] = arguments["weights"]._replace(strength=float("nan"))
    with pytest.raises(
        OptionsError, match=r"semantic_attention: strength: expected a finite number, got nan"
    ):
        run(arguments)
