"""The ops inside the network, as `registry` lists them, each with random arguments of any size."""

from __future__ import annotations

import numpy as np

from fastbts import ops
from fastbts.ops import AttentionWeights, BridgeWeights, Size, reference
from tests.ops.op import Arguments, Op, Random, noise, tensor


def bridge_weights(rng: Random, n_r: int, n_c: int) -> BridgeWeights:
    """Sums stay near 1."""
    conv = noise(rng, n_r, 2 * n_r, 3, 3) / np.sqrt(18 * n_r, dtype=np.float32)
    return BridgeWeights(conv, noise(rng, n_r), noise(rng, 3, n_r), noise(rng, n_c, n_r))


def semantic_bridge_example(
    rng: Random, size: Size, _: str = "float32", *, n_r: int = 5, n_c: int = 7, n_cases: int = 2
) -> Arguments:
    return {
        "x": noise(rng, n_cases, n_c, *size),
        "reduced": noise(rng, n_cases, n_r, *size),
        "weights": bridge_weights(rng, n_r, n_c),
    }


def bridge_outputs(given: Arguments) -> Arguments:
    n_scratch = ops.semantic_bridge_scratch(given["reduced"].shape, given["x"].shape[1])
    return {"out": tensor(*given["x"].shape), "scratch": tensor(n_scratch)}


def semantic_attention_example(
    rng: Random,
    size: Size,
    _: str = "float32",
    *,
    n_c: int = 3,
    n_below: int = 4,
    n_j: int = 19,
    n_cases: int = 2,
) -> Arguments:
    """`size` is that of the level below; three similarity maps at half of it."""
    encoded, decoded = noise(rng, 2, n_cases, n_below, *size)
    w_x, bias, w_g = noise(rng, n_j, n_below) / 4, noise(rng, n_j), noise(rng, n_j, n_below) / 4
    w_s, w_a = noise(rng, n_j, 3), noise(rng, n_j, 2, 2, 2) / 4
    return {
        "skip": noise(rng, n_cases, n_c, *(2 * n for n in size)),
        "encoded": encoded,
        "decoded": decoded,
        "similarity": noise(rng, n_cases, 3, *(max(1, n // 2) for n in size)),
        "weights": AttentionWeights(w_x, bias, w_g, w_s, w_a, strength=0.7),
    }


SEMANTIC_OPS = (
    Op(
        "semantic_bridge",
        semantic_bridge_example,
        lambda **given: (reference.semantic_bridge(**given),),
        results=("out",),
        outputs=bridge_outputs,
        floats=("x", "reduced", "out"),
        n_roundings=2,
    ),
    Op(
        "semantic_attention",
        semantic_attention_example,
        lambda **given: (reference.semantic_attention(**given),),
        results=("out",),
        outputs=lambda given: {"out": tensor(*given["skip"].shape)},
        floats=("skip", "encoded", "decoded", "similarity", "out"),
        # A thread sums 16 hidden channels in registers, so that features are read once; 3 blocks of
        # 256 threads fit.
        max_registers=80,
    ),
)
