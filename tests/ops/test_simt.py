"""The CUDA kernels, run without a GPU by the SIMT emulation (tests/simt), against the twins; and what the emulation catches."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import ops
from fastbts.ops import AttentionWeights, Planes, PlaneWeights, reference
from tests.ops.test_blend import example as blend_example
from tests.ops.test_resample_affine import oblique
from tests.ops.views import head, restrided
from tests.simt.emulated import (
    DTYPES,
    IMAGE_DTYPES,
    ROOT,
    EmulationError,
    call,
    layout,
    loaded,
    stored,
)
from tests.tolerances import allowed_error

Size = tuple[int, int, int]
SEEDS = (0, 1, 2)
SHAPES = ((1, 1, 1), (2, 3, 5), (3, 7, 33))
EPS = {
    "float32": 0.0,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}  # rounding of the result; inputs are rounded beforehand

on_every_seed = pytest.mark.parametrize("seed", SEEDS)
on_every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rounded(array: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    return loaded(stored(array, dtype), dtype)


def empty(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return stored(np.full(shape, 77, np.float32), dtype)


def check(
    result: NDArray[Any], dtype: str, on_cpu: NDArray[np.float32], exact: NDArray[Any]
) -> None:
    """As near to the twin as the rule asks of a float32 result (the CPU op is the peer), but for the rounding of dtype."""
    allowed = allowed_error(on_cpu, exact) + EPS[dtype] * np.abs(exact).max()
    assert np.abs(loaded(result, dtype) - exact).max() <= allowed


@pytest.mark.parametrize("n", [32, 9])
@on_every_seed
def test_warp_functions(seed: int, n: int) -> None:
    out = np.full((32, 6), -7, np.int32)
    call("warp", seed, n, out)
    for lane in range(n):
        partner, below = lane ^ 1, lane + 2
        ballot = sum(1 << i for i in range(n) if i % 3 == 0)
        expected = [
            10,
            partner if partner < n else lane,
            below if below < n else lane,
            max(lane - 1, 0),
            ballot,
            1,
        ]
        assert out[lane].tolist() == expected
    assert (out[n:] == -7).all()


@on_every_seed
def test_atomics(seed: int) -> None:
    total, smallest = np.zeros(1, np.int32), np.full(1, 999, np.int32)
    call("atomic", seed, total, smallest)
    assert (total[0], smallest[0]) == (200, 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (0, r"__syncthreads\(\) that some threads never reach"),
        (1, "a lane is not in its own mask"),
        (2, "a warp exchange names a lane that has exited"),
    ],
)
@on_every_seed
def test_undefined_behaviour_is_an_error(seed: int, kind: int, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        call("wrong", seed, kind)


def extents(*shape: int) -> NDArray[np.int64]:
    return np.array(shape, np.int64)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
@on_every_seed
def test_brain_box(seed: int, shape: Size, dtype: str) -> None:
    volume = restrided(head(shape, dtype, 3), (2, 0, 1), (-1, 1, 1))
    if dtype[0] == "f":
        volume[1, 0, 0, 0], volume[2, -1, -1, -1] = np.nan, np.inf
    found = np.zeros(13, np.int64)
    call("brain_box", seed, IMAGE_DTYPES[dtype], volume, layout(volume), found)
    (d, h, w), *counts = reference.brain_box(volume)
    assert found.tolist() == [*d, *h, *w, counts[0], *counts[1], *counts[2]]


def test_brain_box_of_nothing() -> None:
    volume, found = np.zeros((1, 3, 4, 5), np.int16), np.zeros(9, np.int64)
    call("brain_box", 0, IMAGE_DTYPES["i2"], volume, layout(volume), found)
    assert not found.any()


@pytest.mark.parametrize(
    ("image", "dtype"), [("i2", "float32"), ("u1", "float16"), ("f8", "bfloat16")]
)
@on_every_seed
def test_normalize(seed: int, image: str, dtype: str) -> None:
    volume = restrided(head((5, 6, 35), image), (1, 0, 2), (1, -1, 1))
    box, size, percentiles = ((1, 5), (0, 6), (2, 35)), (6, 7, 40), (5.0, 95.0)
    inside = volume[:, 1:5, :, 2:]
    out, stats = empty((2, *size), dtype), np.empty((2, 4))
    scratch = np.full(ops.normalize_scratch(2, box), 0xAB, np.uint8)
    arguments = (IMAGE_DTYPES[image], inside, layout(inside), np.array(percentiles), DTYPES[dtype])
    call("normalize", seed, *arguments, out, extents(2, *size), stats, scratch)
    exact, exact_stats = reference.normalize(volume, box, size, percentiles)
    np.testing.assert_allclose(stats, exact_stats, rtol=1e-12)
    check(out, dtype, ops.normalize(volume, box, size, percentiles)[0], exact)


@pytest.mark.parametrize("to", DTYPES)
@on_every_dtype
@on_every_seed
def test_window(seed: int, dtype: str, to: str) -> None:
    """Windows that begin before the tensor, end after it, miss it; rounded to the type of out."""
    tensor, size = rounded(random(2, 3, 7, 33), dtype), (2, 5, 34)
    origins = np.array([(0, 0, 0), (-1, 3, 5), (2, -2, -9), (3, 0, 0)], np.int32)
    out = empty((4, 2, *size), to)
    source = (DTYPES[dtype], stored(tensor, dtype), extents(*tensor.shape), origins)
    call("window", seed, *source, DTYPES[to], out, extents(*out.shape))
    assert np.array_equal(
        loaded(out, to), rounded(reference.window(tensor, origins, size).astype(np.float32), to)
    )


@on_every_dtype
@on_every_seed
def test_blend(seed: int, dtype: str) -> None:
    """The bits of the CPU: whatever the logits are, sums are float32, in the order of windows."""
    logits, origins, weights, total = blend_example((3, 7, 33), window=(2, 5, 9))
    logits, expected = rounded(logits, dtype), total.copy()
    tensors = (
        stored(logits, dtype),
        extents(*logits.shape),
        origins,
        *weights,
        total,
        extents(*total.shape),
    )
    call("blend", seed, DTYPES[dtype], *tensors)
    ops.blend(logits, origins, weights, expected)
    assert np.array_equal(total, expected)


@on_every_dtype
@on_every_seed
def test_label(seed: int, dtype: str) -> None:
    logits, thresholds = rounded(random(3, 3, 7, 33), dtype), (0.4, 0.5, 0.6)
    labels = restrided(np.full((5, 9, 40), 9, np.uint8), (1, 2, 0), (1, -1, -1))
    box, counts = ((1, 4), (2, 9), (5, 38)), np.zeros(3, np.int64)
    expected, n = reference.label(logits, (0, 0, 0), box, thresholds, (2, 1, 4), labels.copy())
    inside, least = labels[1:4, 2:9, 5:38], np.float32([np.log(t / (1 - t)) for t in thresholds])
    call(
        "label",
        seed,
        DTYPES[dtype],
        stored(logits, dtype),
        extents(*logits.shape),
        least,
        inside,
        layout(inside),
        counts,
    )
    assert np.array_equal(labels, expected)
    assert tuple(counts.tolist()) == n


@pytest.mark.parametrize("to", [(1, 1, 1), (4, 3, 11), (3, 7, 33)])
@pytest.mark.parametrize("shape", SHAPES)
@on_every_dtype
def test_resample(dtype: str, shape: Size, to: Size) -> None:
    tensor, out = rounded(random(2, *shape), dtype), empty((2, *to), dtype)
    call("resample", 0, DTYPES[dtype], stored(tensor, dtype), [2, *shape, *to], out)
    check(out, dtype, ops.resample(tensor, to), reference.resample(tensor, to))


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("image", ["i2", "u1", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
@on_every_seed
def test_resample_affine(seed: int, shape: Size, image: str, nearest: bool) -> None:
    """The bits of the CPU; labels stay labels."""
    tensor, size = (
        restrided((random(2, *shape) * 9).clip(0).astype(image), (2, 0, 1), (-1, 1, 1)),
        (4, 3, 35),
    )
    out = np.full((2, *size), 77, np.uint8 if nearest and image == "u1" else np.float32)
    matrix, kind = oblique(1, shape, size), IMAGE_DTYPES["u1" if out.dtype == np.uint8 else "f4"]
    call(
        "resample_affine",
        seed,
        IMAGE_DTYPES[image],
        tensor,
        layout(tensor),
        np.append(matrix, 5),
        nearest,
        kind,
        out,
        layout(out),
    )
    assert np.array_equal(
        out, ops.resample_affine(tensor, matrix, size, nearest=nearest, outside=5)
    )
    assert not (out == 5).all()


@pytest.mark.parametrize("shape", SHAPES)
@on_every_dtype
@on_every_seed
def test_project(seed: int, dtype: str, shape: Size) -> None:
    d, h, w = shape
    tensor = rounded(random(2, 3, *shape), dtype)
    planes = [empty((2, 6, *size), dtype) for size in ((h, w), (d, w), (d, h))]
    call("project", seed, DTYPES[dtype], stored(tensor, dtype), [2, 3, *shape], *planes)
    for result, on_cpu, exact in zip(
        planes, ops.semantic_project(tensor), reference.semantic_project(tensor), strict=True
    ):
        check(result, dtype, on_cpu, exact)


def plane_case(
    dtype: str = "float32", size: tuple[int, int] = (5, 13), n_r: int = 5, n_c: int = 7
) -> Any:
    """Plane (all three views the same), weights, and the arguments of the kernel but for the seed and what it launches."""
    plane = rounded(random(2, 2 * n_r, *size), dtype)
    weights = PlaneWeights(
        random(n_r, 2 * n_r, 3, 3), random(n_r), random(3, n_r), random(n_c, n_r)
    )
    view, out = np.ascontiguousarray(weights.view[1]), empty((2, n_c, *size), dtype)
    tensors = (stored(plane, dtype), weights.conv, weights.bias, view, weights.expand)
    return (
        Planes(plane, plane, plane),
        weights,
        (DTYPES[dtype], *tensors, 2, [n_r, n_c, *size], out),
    )


@pytest.mark.parametrize("size", [(1, 1), (5, 13), (8, 8)])
@on_every_dtype
@on_every_seed
def test_plane(seed: int, dtype: str, size: tuple[int, int]) -> None:
    planes, weights, arguments = plane_case(dtype, size)
    call("plane", seed, *arguments, 128, 0)
    on_cpu, exact = ops.semantic_plane(planes, weights), reference.semantic_plane(planes, weights)
    check(arguments[-1], dtype, on_cpu.y, exact[1])


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@on_every_dtype
def test_lift(dtype: str, shape: Size, add: bool) -> None:
    d, h, w = shape
    planes = Planes(*(rounded(random(2, 3, *size), dtype) for size in ((h, w), (d, w), (d, h))))
    target = rounded(random(2, 3, *shape, seed=1), dtype)
    out = stored(target, dtype)
    call(
        "lift", 0, DTYPES[dtype], *(stored(p, dtype) for p in planes), [2, 3, *shape], int(add), out
    )
    on_cpu = ops.semantic_lift(planes, target.copy() if add else None)
    check(out, dtype, on_cpu, reference.semantic_lift(planes, target if add else None))


@on_every_dtype
def test_widen(dtype: str) -> None:
    sizes = [1, 0, 200, 64, 65, 3]
    source = stored(random(sum(sizes)), dtype)
    target = np.full(source.shape, 77, np.float32)
    call("widen", 0, DTYPES[dtype], source, sizes, target)
    assert np.array_equal(target, loaded(source, dtype))


@pytest.mark.parametrize("strength_on_device", [0, 1])
@pytest.mark.parametrize("n_hidden", [1, 16, 19])
@pytest.mark.parametrize("below", [(1, 1, 1), (2, 3, 5), (3, 5, 9)])
@on_every_dtype
@on_every_seed
def test_attention(
    seed: int, dtype: str, below: Size, n_hidden: int, strength_on_device: int
) -> None:
    n_c, n_below, maps = 3, 4, (2, 2, 3)
    skip, (encoded, decoded) = (
        random(2, n_c, *(2 * n for n in below)),
        random(2, 2, n_below, *below),
    )
    similarity, random_w = (
        random(2, 3, *maps, seed=2),
        random(n_hidden, 2 * n_below + 3 + 1 + 8, seed=3),
    )
    parts = np.split(random_w, (n_below, n_below + 1, 2 * n_below + 1, 2 * n_below + 4), axis=1)
    w_x, bias, w_g, w_s, w_a = (np.ascontiguousarray(part) for part in parts)
    weights = AttentionWeights(
        w_x, bias[:, 0].copy(), w_g, w_s, w_a.reshape(n_hidden, 2, 2, 2), strength=0.7
    )
    features = [rounded(x, dtype) for x in (skip, encoded, decoded, similarity)]
    buffer = empty((2, n_c + 2, *skip.shape[2:]), dtype)
    sizes, strength = (
        [n_c, n_below, n_hidden, 3, *below, *maps, 2],
        (ctypes.c_float(0.7), strength_on_device),
    )
    step = ctypes.c_int64(buffer[0].size)
    call(
        "attention",
        seed,
        DTYPES[dtype],
        *(stored(x, dtype) for x in features),
        *weights[:5],
        *strength,
        sizes,
        step,
        buffer,
    )
    on_cpu = np.empty_like(skip)
    ops.semantic_attention(*features, weights, on_cpu)
    check(buffer[:, :n_c], dtype, on_cpu, reference.semantic_attention(*features, weights))
    assert (loaded(buffer[:, n_c:], dtype) == 77).all(), "the rest of the concatenation"


@pytest.mark.parametrize("density", [0.0, 0.08, 0.3, 1.0])
@on_every_seed
def test_components(seed: int, density: float) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((9, 10, 11)) < density).astype(np.uint8) * rng.integers(
        1, 5, (9, 10, 11), np.uint8
    )
    box = ((1, 8), (2, 9), (1, 10))
    expected, n_before, n_after = reference.components(labels, box, 5)
    inside = labels[1:8, 2:9, 1:10]
    size, steps = list(inside.shape), np.array(inside.strides, np.int64)
    scratch, counts = np.zeros((2, inside.size), np.int32), np.zeros(258, np.uint64)
    histogram = np.bincount(labels.ravel(), minlength=256) - np.bincount(
        expected.ravel(), minlength=256
    )
    call("components", seed, inside, size, steps, 5, scratch, counts)
    assert np.array_equal(labels, expected)
    assert counts[:2].tolist() == [n_before, n_after]
    assert np.array_equal(counts[3:], histogram[1:])


def test_a_removed_barrier_is_caught() -> None:
    """Without __syncthreads the kernel reads hidden channels that other warps have not written: never right on all seeds."""
    planes, weights, arguments = plane_case()
    exact = reference.semantic_plane(planes, weights)[1]
    wrong = []
    for seed in SEEDS:
        call("plane", seed, *arguments, 128, 0, options=("-DFASTBTS_PLANT_RACE",))
        wrong.append(not np.allclose(arguments[-1], exact, atol=1e-3))
    assert all(wrong)


@pytest.mark.parametrize(
    ("n_threads", "message"),
    [(2048, "a block has 1 to 1024 threads"), (0, "a block has 1 to 1024")],
)
def test_an_impossible_block_is_refused(n_threads: int, message: str) -> None:
    arguments = plane_case()[2]
    with pytest.raises(EmulationError, match=message):
        call("plane", 0, *arguments, n_threads, 0)


def test_too_much_shared_memory_is_refused() -> None:
    arguments = plane_case()[2]
    with pytest.raises(EmulationError, match="at most 48 KiB of shared memory"):
        call("plane", 0, *arguments, 128, -50_000)


def run_sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the sanitizers' runtime loaded first, as it is not instrumented itself."""
    compiler = os.environ.get("CXX", "c++")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not all(Path(runtime).is_absolute() for runtime in runtimes):
        pytest.skip("the compiler has no address sanitizer")
    environment = {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "FASTBTS_SIMT_SANITIZE": "1",
    }
    environment |= {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


ONE_OF_EACH = (
    "warp_functions[0-9]", "atomics[1]", "brain_box[1-shape2-f4]", "normalize[1-f8-bfloat16]", "window[1-float16-bfloat16]", "resample_affine[1-shape2-i2-False]",
    "blend[1-bfloat16]", "label[1-float16]", "resample[bfloat16-shape1-to1]", "project[1-float16-shape1]", "plane[1-float32-size1]",
    "lift[float16-shape1-True]", "attention[1-float32-below1-19-1]", "widen[float16]", "components[1-0.08]",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif("FASTBTS_SIMT_SANITIZE" in os.environ, reason="this is the run that it starts")
def test_kernels_are_clean_under_the_sanitizers() -> None:
    run = run_sanitized(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"{__file__}::test_{case}" for case in ONE_OF_EACH),
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert f"{len(ONE_OF_EACH)} passed" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif("FASTBTS_SIMT_SANITIZE" in os.environ, reason="this is the run that it starts")
def test_an_overrun_of_shared_memory_is_caught() -> None:
    """The launch asks for four bytes less than the kernel uses."""
    script = (
        "from tests.ops.test_simt import plane_case; from tests.simt.emulated import call; "
        "call('plane', 0, *plane_case()[2], 128, {}); print('unharmed')"
    )
    assert "unharmed" in run_sanitized("-c", script.format(0)).stdout
    run = run_sanitized("-c", script.format(4))
    assert run.returncode != 0
    assert "heap-buffer-overflow" in run.stderr
    assert "plane_kernel" in run.stderr
