"""Each instruction set that the machine has is forced in turn: every op gives the same bits, for any number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts import _C, ops
from fastbts.ops import AttentionWeights, Planes, PlaneWeights

NEEDED = {"plain": set(), "avx2": {"avx2"}, "avx512": {"avx512f"}}


def results(seed: int, n_threads: int) -> list[Any]:
    """What every op makes of random arrays; images from values of few bits to large ones, sizes that fill no vector."""
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    found: list[Any] = []
    for dtype, scale in (("u1", 9), ("i2", 2000), ("i4", 3e8), ("f4", 1e3), ("f8", 1e3)):
        image = (random(2, 9, 11, 37) * scale).clip(0).astype(dtype)
        brain = ops.brain_box(image, n_threads)
        found += [
            repr(brain),
            *ops.normalize(image, brain.bounds, (12, 12, 40), n_threads=n_threads),
        ]
    origins = np.array([[0, 0, 0], [2, -1, 3]], np.int32)
    windows, total = (
        ops.window(random(2, 9, 11, 37), origins, (6, 7, 35), n_threads=n_threads),
        random(2, 9, 11, 37),
    )
    ops.blend(windows, origins, (random(2, 6), random(2, 7), random(2, 35)), total, n_threads)
    labels, box = np.zeros((9, 11, 37), np.uint8), ((0, 9), (0, 11), (0, 37))
    found += [
        windows,
        total,
        ops.label(
            random(3, 9, 11, 37), (0, 0, 0), box, (0.5, 0.5, 0.5), (2, 1, 4), labels, n_threads
        ),
    ]
    found += [
        labels.copy(),
        ops.components(labels, box, 3, n_threads),
        labels,
        ops.resample(total, (5, 13, 41), n_threads),
    ]
    found.append(
        ops.resample_affine(total, np.eye(3, 4) + random(3, 4) / 8, (5, 13, 41), n_threads)
    )
    reduced, target = random(1, 5, 7, 9, 19), random(1, 6, 7, 9, 19)
    plane_weights = PlaneWeights(random(5, 10, 3, 3), random(5), random(3, 5), random(6, 5))
    planes = ops.semantic_project(reduced, n_threads)
    seen = ops.semantic_plane(planes, plane_weights, n_threads)
    found += [*planes, *seen, ops.semantic_lift(Planes(*seen), n_threads=n_threads)]
    ops.semantic_bridge(reduced, plane_weights, target, n_threads)
    weights = AttentionWeights(
        random(9, 6), random(9), random(9, 6), random(9, 2), random(9, 2, 2, 2), strength=0.7
    )
    out = np.empty((1, 3, 10, 22, 38), np.float32)
    ops.semantic_attention(
        random(*out.shape),
        random(1, 6, 5, 11, 19),
        random(1, 6, 5, 11, 19),
        random(1, 2, 3, 5, 9),
        weights,
        out,
        n_threads,
    )
    return [*found, target, out]


def digest(seed: int, n_threads: int) -> str:
    parts = (
        x.tobytes() if isinstance(x, np.ndarray) else repr(x).encode()
        for x in results(seed, n_threads)
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


def run_with(isa: str, seed: int) -> list[str]:
    """The instruction set that ran, and the digests for one thread, twice, and for three."""
    script = f"from tests.ops.test_isa import _C, digest; print(_C.ISA, *(digest({seed}, n) for n in (1, 1, 3)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "FASTBTS_ISA": isa},
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512"])
def test_same_bits(isa: str) -> None:
    info = Path("/proc/cpuinfo")
    if not info.is_file() or not NEEDED[isa] <= set(info.read_text().split()):
        pytest.skip(f"this machine has no {isa}")
    seed = int.from_bytes(os.urandom(4))
    ran, *digests = run_with(isa, seed)
    assert ran == isa
    assert set(digests) == {digest(seed, 2)}, f"seed {seed}"


def test_best_is_the_default() -> None:
    assert "FASTBTS_ISA" in os.environ or run_with("avx512", 0)[0] == _C.ISA


def test_streamed_outputs_are_whole() -> None:
    """Past the size from which outputs are written past the caches, at addresses that no vector starts at."""
    tensor = np.random.default_rng().standard_normal((1, 40, 70, 61), np.float32)
    origins = np.array([[0, b % 5, 1 - b % 3] for b in range(60)], np.int32)
    size = (40, 64, 55)
    buffer = np.full(1 + 60 * 40 * 64 * 55, np.nan, np.float32)
    out = buffer[1:].reshape(60, 1, *size)
    assert out.nbytes > 2**25
    ops.window(tensor, origins, size, out, 2)
    padded = np.pad(tensor, ((0, 0), (0, 0), (0, 0), (1, 1)))
    for window, (_, h, w) in zip(out, origins.tolist(), strict=True):
        np.testing.assert_array_equal(window[0], padded[0, :, h : h + 64, w + 1 : w + 56])


def test_streamed_attention_is_whole() -> None:
    """A skip connection that is written past the caches is what its channels are one by one, which are not."""
    rng = np.random.default_rng()
    weights = AttentionWeights(
        *(rng.standard_normal(s, np.float32) for s in ((9, 2), 9, (9, 2), (9, 1), (9, 2, 2, 2))),
        0.5,
    )
    shape, below, coarse = (1, 3, 112, 162, 178), (1, 2, 56, 81, 89), (1, 1, 7, 9, 11)
    skip, encoded, decoded, maps = (
        rng.standard_normal(s, np.float32) for s in (shape, below, below, coarse)
    )
    out = np.full(1 + skip.size, np.nan, np.float32)[1:].reshape(shape)
    assert out.nbytes > 2**25 > out[:, :1].nbytes
    ops.semantic_attention(skip, encoded, decoded, maps, weights, out, 2)
    for c in range(3):
        alone = np.empty((1, 1, *shape[2:]), np.float32)
        ops.semantic_attention(skip[:, c : c + 1], encoded, decoded, maps, weights, alone, 2)
        np.testing.assert_array_equal(out[:, c : c + 1], alone)


def test_threads_change_no_bit_of_semantic_ops() -> None:
    """At sizes that are worth several threads; below them one does all."""
    rng = np.random.default_rng()
    tensor = rng.standard_normal((1, 16, 32, 96, 48), np.float32)
    weights = PlaneWeights(
        *(rng.standard_normal(s, np.float32) for s in ((16, 32, 3, 3), (16,), (3, 16), (24, 16)))
    )

    def bridge(n_threads: int) -> list[Any]:
        planes = ops.semantic_project(tensor, n_threads)
        seen = ops.semantic_plane(planes, weights, n_threads)
        return [*planes, *seen, ops.semantic_lift(seen, n_threads=n_threads)]

    once = bridge(1)
    for n_threads in (1, 2, 5):
        for got, expected in zip(bridge(n_threads), once, strict=True):
            np.testing.assert_array_equal(got, expected)


GAPPED = ("skip", "encoded", "decoded", "similarity", "out")


@pytest.mark.parametrize("gapped", [GAPPED, ("encoded",)], ids=["all", "encoded"])
@pytest.mark.parametrize("n_w", [5, 19, 35])
def test_attention_of_rows_with_gaps(n_w: int, gapped: tuple[str, ...]) -> None:
    """Rows that follow each other in memory are taken together; others, of panels of 16 voxels and a rest, give the same bits."""
    rng = np.random.default_rng()
    weights = AttentionWeights(
        *(rng.standard_normal(s, np.float32) for s in ((4, 2), 4, (4, 2), (4, 1), (4, 2, 2, 2))),
        0.5,
    )
    shape, below = (1, 3, 6, 38, 2 * n_w), (1, 2, 3, 19, n_w)
    arrays = [rng.standard_normal(s, np.float32) for s in (shape, below, below, (1, 1, 2, 4, 3))]
    expected, untouched = np.empty(shape, np.float32), np.full(shape, np.nan, np.float32)
    ops.semantic_attention(*arrays, weights, expected)
    gaps = [3 * (name in gapped) for name in GAPPED]
    buffers = [
        np.pad(x, [(0, 0)] * 4 + [(0, n)], constant_values=np.nan)
        for x, n in zip([*arrays, untouched], gaps, strict=True)
    ]
    *views, out = (
        buffer[..., : buffer.shape[-1] - n] for buffer, n in zip(buffers, gaps, strict=True)
    )
    ops.semantic_attention(*views, weights, out)
    np.testing.assert_array_equal(out, expected)
    assert np.isnan(buffers[-1][..., 2 * n_w :]).all()
