"""The CUDA ops on the SIMT emulation (tests/simt), and what the emulation itself finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import ops
from fastbts.ops import reference
from tests.ops.devices import EmulatedDevice, mapped
from tests.ops.op import NETWORK_TYPES, Arguments, Op, noise
from tests.ops.registry import CUDA_OPS, OPS
from tests.ops.views import IMAGE_TYPES, restrided
from tests.simt.emulated import (
    DTYPES,
    STREAM,
    EmulatedArray,
    EmulationError,
    call,
    emulated_device,
    loaded,
    rounded,
    run_sanitized,
    stored,
)
from tests.tolerances import allowed_error

SEEDS = (0, 1, 2)
SIZES = ((1, 1, 1), (2, 3, 5), (3, 7, 33))
EPS = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Rounding of results; inputs are rounded beforehand."""

on_every_seed = pytest.mark.parametrize("seed", SEEDS)
not_when_sanitized = pytest.mark.skipif(
    "FASTBTS_SIMT_SANITIZE" in os.environ, reason="this is the run that it starts"
)


class Case(NamedTuple):
    op: Op
    image: str  # element type of the image, of ops that take one
    dtype: str  # that of network tensors
    size: ops.Size
    seed: int

    def __str__(self) -> str:
        image = [self.image] if self.image in IMAGE_TYPES else []
        size = "x".join(map(str, self.size))
        return "-".join([self.op.name, *image, self.dtype, size, str(self.seed)])


def types_of(op: Op) -> list[tuple[str, str]]:
    """Types of image and network tensors to try: each of either at least once."""
    networks = NETWORK_TYPES if op.floats else NETWORK_TYPES[:1]
    n = max(len(op.dtypes), len(networks))
    return [(op.dtypes[i % len(op.dtypes)], networks[i % len(networks)]) for i in range(n)]


def cases_of(op: Op) -> Iterator[Case]:
    """All sizes for all types; each with all seeds, or with one of them where types are many."""
    for i, types in enumerate(types_of(op)):
        seeds = SEEDS if op.dtypes != IMAGE_TYPES else (SEEDS[i % len(SEEDS)],)
        for size, seed in product(SIZES, seeds):
            yield Case(op, *types, size, seed)


CASES = [case for op in CUDA_OPS for case in cases_of(op)]


def arguments_of(case: Case) -> Arguments:
    """An example whose values the type can hold, and whose strides vary where they may."""
    given = case.op.example(np.random.default_rng(case.seed), case.size, case.image)
    for name in case.op.floats:
        if name in given:
            given[name] = rounded(given[name], case.dtype)
    for name in case.op.strided:
        given[name] = restrided(given[name], (2, 0, 1), (-1, 1, 1))
    return given


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_agree_with_the_reference(case: Case) -> None:
    """The CPU op is the peer; results are rounded to the type of the network where they have it."""
    op, given = case.op, arguments_of(case)
    exact, arguments = op.exact(**given), op.outputs(given) | given
    on_cpu = {name: mapped(np.copy, value) for name, value in arguments.items()}
    op.function(**on_cpu)
    results = EmulatedDevice(case.dtype, seed=case.seed).results(op, arguments)
    for name, result, wanted in zip(op.results, results, exact, strict=True):
        dtype = case.dtype if name in op.floats else "float32"
        compare(case, result, on_cpu[name], wanted, dtype)


def compare(case: Case, result: Any, peer: Any, exact: Any, dtype: str) -> None:
    """A result on the emulated device, rounded to `dtype`, with the CPU's and the exact one."""
    if np.asarray(exact).dtype.kind != "f":
        assert np.array_equal(result, exact)
    elif result.dtype.kind != "f":  # sums of rounded numbers
        np.testing.assert_allclose(result, exact, rtol=1e-6)
    elif result.dtype == np.float64:
        np.testing.assert_allclose(result, exact, rtol=1e-12)
    elif case.op.same_bits:
        assert np.array_equal(result, rounded(peer, dtype))
    else:
        roundings = case.op.n_roundings * EPS[dtype] * np.abs(exact).max()
        assert np.abs(result - exact).max() <= allowed_error(peer, exact) + roundings


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@on_every_seed
def test_windows_may_be_of_another_type(seed: int, dtype: str, to: str) -> None:
    given = OPS["window"].arguments(seed, (3, 7, 33))
    tensor, out = rounded(given["tensor"], dtype), EmulatedArray(given["out"], to)
    origins = EmulatedArray(given["origins"])
    with emulated_device(seed):
        ops.window(EmulatedArray(tensor, dtype), origins, given["size"], out=out, stream=STREAM)
    expected = reference.window(tensor, given["origins"], given["size"]).astype(np.float32)
    assert np.array_equal(out.get(), rounded(expected, to))


@pytest.mark.parametrize("density", [0.0, 0.08, 0.3, 1.0])
@on_every_seed
def test_components_of_any_density(seed: int, density: float) -> None:
    rng, box = np.random.default_rng(1), ((1, 8), (2, 9), (1, 10))
    labels = (rng.random((9, 10, 11)) < density) * rng.integers(1, 5, (9, 10, 11), np.uint8)
    expected = ops.components(on_cpu := labels.copy(), box, 5)
    assert EmulatedDevice(seed=seed).components(labels, box, 5) == expected
    assert np.array_equal(labels, on_cpu)


@pytest.mark.parametrize("blocks", [1, 3, 4])
@on_every_seed
def test_stray_core_of_any_grain(seed: int, blocks: int) -> None:
    """Parts of one voxel up to parts of nearly all core."""
    rng, box = np.random.default_rng(blocks), ((1, 8), (2, 9), (1, 10))
    labels = rng.choice(np.array([0, 1, 2, 4], np.uint8), (9, 10, 11), p=(0.1, 0.3, 0.2, 0.4))
    for axis in range(3):
        labels = labels.repeat(blocks, axis)
    labels = labels[:9, :10, :11].copy()
    expected = ops.stray_core(on_cpu := labels.copy(), box, (2, 1, 4), 2)
    assert EmulatedDevice(seed=seed).stray_core(labels, box, (2, 1, 4), 2) == expected
    assert np.array_equal(labels, on_cpu)


@pytest.mark.parametrize("image", ["i2", "f4", "f8"])
@on_every_seed
def test_nearest_voxels_of_any_type(seed: int, image: str) -> None:
    given = OPS["resample_affine"].example(np.random.default_rng(seed), (3, 7, 33), image)
    given["nearest"] = True
    result = EmulatedDevice(seed=seed).resample_affine(**given)
    assert np.array_equal(result, ops.resample_affine(**given))
    assert not (result == given["outside"]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_j", [1, 16, 33])
@pytest.mark.parametrize("size", SIZES)
def test_attention_with_any_number_of_hidden_channels(size: ops.Size, n_j: int, dtype: str) -> None:
    """Into the first channels of a concatenation, whose others stay."""
    given = OPS["semantic_attention"].example(np.random.default_rng(n_j), size, n_j=n_j)
    features = [name for name in OPS["semantic_attention"].floats if name in given]
    given |= {name: rounded(given[name], dtype) for name in features}
    buffer = EmulatedArray(np.full((2, 5, *given["skip"].shape[2:]), 77, np.float32), dtype)
    there = EmulatedDevice(dtype).moved(OPS["semantic_attention"], given)
    with emulated_device():
        ops.semantic_attention(**there, out=buffer.cropped(slice(3)), stream=STREAM)
    on_cpu, exact = ops.semantic_attention(**given), reference.semantic_attention(**given)
    allowed = allowed_error(on_cpu, exact) + EPS[dtype] * np.abs(exact).max()
    assert np.abs(buffer.get()[:, :3] - exact).max() <= allowed
    assert (buffer.get()[:, 3:] == 77).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_attention_with_its_strength_on_the_device(size: ops.Size, dtype: str) -> None:
    rng = np.random.default_rng(0)
    skip = rounded(noise(rng, 1, 1, *(2 * n for n in size)), dtype)
    below, similarity = (rounded(x, dtype) for x in noise(rng, 2, 1, 1, *size))
    out, (a, b, c) = stored(skip, dtype), (stored(x, dtype) for x in (skip, below, similarity))
    call("attention", DTYPES[dtype], a, b, c, np.array(size), np.float32([0.7]), out)
    one = np.ones((1, 1), np.float32)
    weights = ops.AttentionWeights(one, one[0], one, one, np.ones((1, 2, 2, 2), np.float32), 0.7)
    exact = reference.semantic_attention(skip, below, below, similarity, weights)
    np.testing.assert_allclose(loaded(out, dtype), exact, rtol=EPS[dtype], atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_widen(dtype: str) -> None:
    sizes = np.array([1, 0, 200, 64, 65, 3], np.int32)
    source = stored(noise(np.random.default_rng(0), int(sizes.sum())), dtype)
    target = np.full(source.shape, 77, np.float32)
    call("widen", DTYPES[dtype], source, sizes, target)
    assert np.array_equal(target, loaded(source, dtype))


@pytest.mark.parametrize("n", [32, 9])
@on_every_seed
def test_warp_functions(seed: int, n: int) -> None:
    out = np.full((32, 6), -7, np.int32)
    call("warp", seed, n, out)
    ballot = sum(1 << i for i in range(n) if i % 3 == 0)
    for lane in range(n):
        across, above = lane ^ 1, lane + 2
        shown = (10, across if across < n else lane, above if above < n else lane, max(lane - 1, 0))
        assert out[lane].tolist() == [*shown, ballot, 1]
    assert (out[n:] == -7).all()


@pytest.mark.parametrize("n_waits", [0, 1, 2])
@on_every_seed
def test_asynchronous_copies_are_done_when_they_are_waited_for(seed: int, n_waits: int) -> None:
    source = noise(np.random.default_rng(0), 2, 32, 4)
    out = np.zeros_like(source)
    call("copy", seed, source, n_waits, out)
    assert np.array_equal(out[:n_waits], source[:n_waits])
    assert np.isnan(out[n_waits:]).all()


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


@pytest.mark.parametrize("n_threads", [0, 2048])
def test_an_impossible_block_is_refused(n_threads: int) -> None:
    with pytest.raises(EmulationError, match="a block has 1 to 1024 threads"):
        call("launch", n_threads, 0)


def test_work_on_another_stream_is_an_error() -> None:
    tensor, out = mapped(EmulatedArray, (np.zeros((1, 2, 3, 5), np.float32),) * 2)
    refused = pytest.raises(RuntimeError, match="work on another stream than the one given")
    with emulated_device(stream=STREAM + 1), refused:
        ops.resample(tensor, (2, 3, 5), out=out, stream=STREAM)


def results_of(name: str, **plan: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """What an op gives on the emulated device, and what it should."""
    op = OPS[name]
    given = op.example(np.random.default_rng(0), (5, 6, 13), "float32")
    (result,) = EmulatedDevice(**plan).results(op, op.outputs(given) | given)
    return result, op.exact(**given)[0]


@pytest.mark.parametrize("name", ["semantic_bridge", "semantic_attention"])
def test_a_missing_barrier_gives_wrong_results(name: str) -> None:
    """Without it a kernel reads shared memory that other warps have not yet written."""
    for seed in SEEDS:
        result, exact = results_of(name, seed=seed, barriers=False)
        assert not np.allclose(result, exact, atol=1e-3)


@pytest.mark.guard
@pytest.mark.slow
@not_when_sanitized
def test_kernels_are_clean_under_the_sanitizers() -> None:
    """One case of each op, with the last type that it takes."""
    last = {case.op.name: case for case in CASES}.values()
    names = [f"kernels_agree_with_the_reference[{case}]" for case in last]
    names += ["warp_functions[0-9]", "atomics[1]", "widen[float16]"]
    tests = [f"{__file__}::test_{name}" for name in names]
    run = run_sanitized("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert f"{len(tests)} passed" in run.stdout


@pytest.mark.slow
@not_when_sanitized
def test_an_overrun_of_shared_memory_is_caught() -> None:
    """The launch gets four bytes less than the kernel uses."""
    run_bridge = "results_of('semantic_bridge', withheld={}); print(5)"
    script = f"from tests.ops.test_simt import results_of; {run_bridge}"
    assert run_sanitized("-c", script.format(0)).stdout == "5\n"
    run = run_sanitized("-c", script.format(4))
    assert run.returncode != 0
    assert "heap-buffer-overflow" in run.stderr
    assert "plane_kernel" in run.stderr
