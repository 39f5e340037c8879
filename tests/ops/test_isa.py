"""Every op gives the same bits on each instruction set and for any number of threads."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts import _C, ops
from fastbts.ops import AttentionWeights
from tests.ops.op import noise
from tests.ops.registry import ALL, OPS

NEEDED = {"plain": set(), "avx2": {"avx2"}}
SIZE = (9, 11, 37)
"""Rows that fill no vector."""


def digest(seed: int, n_threads: int) -> str:
    """Of what every op makes of random arrays of every element type."""
    digest = hashlib.sha256()
    for op in ALL:
        for dtype in op.dtypes:
            arguments = op.arguments(seed, SIZE, dtype)
            op.function(**arguments, n_threads=n_threads)
            for array in op.written(arguments):
                digest.update(array.tobytes())
    return digest.hexdigest()


def run_with(isa: str, seed: int) -> list[str]:
    """The instruction set that ran, and the digests for one thread, twice, and for three."""
    script = (
        "from tests.ops.test_isa import _C, digest; "
        f"print(_C.ISA, *(digest({seed}, n) for n in (1, 1, 3)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "FASTBTS_ISA": isa},
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("isa", NEEDED)
def test_same_bits(isa: str) -> None:
    info = Path("/proc/cpuinfo")
    if not info.is_file() or not NEEDED[isa] <= set(info.read_text().split()):
        pytest.skip(f"this machine has no {isa}")
    seed = int.from_bytes(os.urandom(4))
    ran, *digests = run_with(isa, seed)
    assert ran == isa
    assert set(digests) == {digest(seed, 2)}, f"seed {seed}"


def test_best_is_the_default() -> None:
    assert "FASTBTS_ISA" in os.environ or run_with("avx2", 0)[0] == _C.ISA


def unaligned(*shape: int) -> Any:
    """An array of NaN whose first element no vector starts at."""
    return np.full(1 + math.prod(shape), np.nan, np.float32)[1:].reshape(shape)


def test_outputs_too_large_for_the_caches_are_complete() -> None:
    """From 32 MiB on, outputs are written by instructions that bypass the caches."""
    tensor = np.random.default_rng().standard_normal((1, 40, 70, 61), np.float32)
    origins = np.array([[0, b % 5, 1 - b % 3] for b in range(60)], np.int32)
    out = unaligned(60, 1, 40, 64, 55)
    assert out.nbytes > 2**25
    ops.window(tensor, origins, out.shape[2:], out=out, n_threads=2)
    padded = np.pad(tensor, ((0, 0), (0, 0), (0, 0), (1, 1)))
    for window, (_, h, w) in zip(out, origins.tolist(), strict=True):
        np.testing.assert_array_equal(window[0], padded[0, :, h : h + 64, w + 1 : w + 56])


def attention_example(skip: tuple[int, ...], n_j: int, coarse: tuple[int, ...]) -> list[Any]:
    """Arguments for a skip of this shape (1, C, D, H, W) and two channels below."""
    rng = np.random.default_rng()
    below = (1, 2, *(n // 2 for n in skip[2:]))
    shapes = ((n_j, 2), (n_j,), (n_j, 2), (n_j, 1), (n_j, 2, 2, 2))
    weights = AttentionWeights(*(noise(rng, *s) for s in shapes), strength=0.5)
    features = (noise(rng, *s) for s in (skip, below, below, (1, 1, *coarse)))
    return [*features, weights]


@pytest.mark.parametrize("name", ["window", "resample", "semantic_bridge"])
def test_threads_change_no_bit_of_large_volumes(name: str) -> None:
    """At sizes that are worth several threads; below them one does all."""
    op, results = OPS[name], []
    for n_threads in (1, 1, 2, 5):
        arguments = op.arguments(0, (64, 96, 72))
        op.function(**arguments, n_threads=n_threads)
        results.append([array.tobytes() for array in op.written(arguments)])
    assert all(result == results[0] for result in results)


GAPPED = ("skip", "encoded", "decoded", "similarity", "out")


@pytest.mark.parametrize("gapped", [GAPPED, ("encoded",)], ids=["all", "encoded"])
@pytest.mark.parametrize("n_w", [5, 19, 35])
def test_attention_of_rows_with_gaps(n_w: int, gapped: tuple[str, ...]) -> None:
    """Rows with gaps between them in memory give the same bits as adjacent ones."""
    *features, weights = attention_example((1, 3, 6, 38, 2 * n_w), 4, (2, 4, 3))
    expected, untouched = np.empty_like(features[0]), np.full_like(features[0], np.nan)
    ops.semantic_attention(*features, weights, out=expected)
    gaps = [3 * (name in gapped) for name in GAPPED]
    buffers = [
        np.pad(x, [(0, 0)] * 4 + [(0, n)], constant_values=np.nan)
        for x, n in zip([*features, untouched], gaps, strict=True)
    ]
    *views, out = (b[..., : b.shape[-1] - n] for b, n in zip(buffers, gaps, strict=True))
    ops.semantic_attention(*views, weights, out=out)
    np.testing.assert_array_equal(out, expected)
    assert np.isnan(buffers[-1][..., 2 * n_w :]).all()
