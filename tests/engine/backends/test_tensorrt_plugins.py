"""TensorRT plugins of bridge and attention against the reference, on emulated kernels.

The tests call them through TensorRT's interfaces. They need only its header, from the folder
FASTBTS_TENSORRT_INCLUDE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import ops
from fastbts.ops import AttentionWeights, BridgeWeights, reference
from tests.simt.build import ROOT
from tests.simt.emulated import DTYPES, EmulationError, loaded, run_sanitized, stored
from tests.simt.plugins import SOURCES, WARNINGS, header_folder, run_plugin
from tests.tolerances import allowed_error

Arrays = list[NDArray[np.float32]]
NVCC = shutil.which("nvcc")
ROUNDINGS = {"float32": 0.0, "float16": 3 * 2.0**-11, "bfloat16": 3 * 2.0**-8}
"""Of what is projected, of what is seen in the planes, and of the result."""


def values(dtype: str, *shapes: tuple[int, ...]) -> Arrays:
    """Arrays that lose nothing in that type."""
    rng = np.random.default_rng(0)
    made = (np.asarray(rng.normal(size=shape), np.float32) for shape in shapes)
    return [
        np.asarray(loaded(np.asarray(stored(array, dtype)), dtype)) for array in made
    ]  # of a scalar they make no array


def bridge(dtype: str = "float32", shape: tuple[int, ...] = (3, 5, 9)) -> Arrays:
    """Two cases, C = 6, R = 4."""
    return values(dtype, (2, 6, *shape), (2, 4, *shape), (4, 8, 3, 3), (4,), (3, 4), (6, 4))


def attention(
    dtype: str = "float32", below: tuple[int, ...] = (3, 5, 9), n_below: int = 5
) -> Arrays:
    """Two cases, C = 3, K = 3, J = 19."""
    skip, level = (2, 3, *(2 * n for n in below)), (2, n_below, *below)
    weights = (19, n_below), (19,), (19, n_below), (19, 3), (19, 2, 2, 2), ()
    return values(dtype, skip, level, level, (2, 3, 2, 2, 3), *weights)


on_every_format = pytest.mark.parametrize("channels_last", [False, True])


def run(name: str, dtype: str, inputs: Arrays, **options: int) -> NDArray[np.float32]:
    return loaded(
        run_plugin(name, dtype, [np.asarray(stored(array, dtype)) for array in inputs], **options),
        dtype,
    )


def check(
    result: NDArray[Any], dtype: str, on_cpu: NDArray[np.float32], exact: NDArray[np.float64]
) -> None:
    assert (
        np.abs(result - exact).max()
        <= allowed_error(on_cpu, exact) + ROUNDINGS[dtype] * np.abs(exact).max()
    )


@on_every_format
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (8, 4, 33)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bridge(dtype: str, shape: tuple[int, ...], channels_last: bool) -> None:
    x, reduced, *weights = inputs = bridge(dtype, shape)
    weights = BridgeWeights(*weights)
    on_cpu = ops.semantic_bridge(x, reduced, weights)
    exact = reference.semantic_bridge(x, reduced, weights)
    result = run("SemanticBridge", dtype, inputs, channels_last=channels_last)
    check(result, dtype, on_cpu, exact)


@on_every_format
@pytest.mark.parametrize("below", [(1, 1, 1), (3, 5, 9), (2, 3, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype: str, below: tuple[int, ...], channels_last: bool) -> None:
    *features, w_x, bias, w_g, w_s, w_a, strength = inputs = attention(dtype, below)
    weights = AttentionWeights(w_x, bias, w_g, w_s, w_a, float(strength))
    on_cpu = ops.semantic_attention(*features, weights)
    result = run("SemanticAttention", dtype, inputs, channels_last=channels_last)
    check(result, dtype, on_cpu, reference.semantic_attention(*features, weights))


@on_every_format
@pytest.mark.parametrize("name", ["SemanticBridge", "SemanticAttention"])
def test_a_workspace_for_larger_shapes_changes_no_bit(name: str, channels_last: bool) -> None:
    inputs = bridge("float16") if name == "SemanticBridge" else attention("float16")
    expected = run(name, "float16", inputs, channels_last=channels_last)
    assert np.array_equal(
        expected, run(name, "float16", inputs, channels_last=channels_last, grown=3)
    )


def test_what_does_not_fit_is_refused() -> None:
    inputs = bridge()
    with pytest.raises(
        EmulationError,
        match=r"onShapeChange: SemanticBridge: input 2 of shape Rr33: expected R = 4, got 3",
    ):
        run("SemanticBridge", "float32", [*inputs[:2], inputs[2][:3].copy(), *inputs[3:]])
    with pytest.raises(
        EmulationError,
        match=r"getOutputShapes: SemanticBridge: input 5: expected shape CR, got rank 1",
    ):
        run("SemanticBridge", "float32", [*inputs[:5], inputs[5].ravel()])
    with pytest.raises(
        EmulationError, match=r"getOutputShapes: SemanticBridge: expected 6 inputs, got 5"
    ):
        run("SemanticBridge", "float32", inputs[:5])
    inputs = attention()
    with pytest.raises(
        EmulationError, match=r"SemanticAttention: input 0 of shape BSdhw: expected w = 18, got 17"
    ):
        run("SemanticAttention", "float32", [inputs[0][..., :17].copy(), *inputs[1:]])
    with pytest.raises(
        EmulationError, match=r"SemanticAttention: input 3 of shape BKXYZ: expected Y = 0, got 0"
    ):
        run(
            "SemanticAttention",
            "float32",
            [*inputs[:3], inputs[3][:, :, :, :0].copy(), *inputs[4:]],
        )
    with pytest.raises(EmulationError, match="no creator of SemanticAbridge"):
        run("SemanticAbridge", "float32", inputs)


def test_a_launch_that_fails_is_a_status_and_a_line_in_the_log() -> None:
    with pytest.raises(
        EmulationError,
        match=r"^enqueue: SemanticAttention: .* a block has at most 48 KiB of shared memory",
    ):
        run("SemanticAttention", "float32", attention(n_below=400, below=(1, 1, 1)))


@pytest.mark.slow
@pytest.mark.skipif("FASTBTS_SIMT_SANITIZE" in os.environ, reason="this is the run that it starts")
def test_plugins_are_clean_under_the_sanitizers() -> None:
    header_folder()
    run = run_sanitized(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "shape1 or below1 or workspace or status",
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "17 passed" in run.stdout


@pytest.mark.skipif(NVCC is None, reason="needs nvcc, for CUDA's headers")
def test_compiles_with_the_headers_of_cuda(tmp_path: Path) -> None:
    host = ("-Wall", "-Wextra", *WARNINGS)
    options = (
        "-std=c++17",
        "-Xcompiler",
        ",".join(host),
        "-I",
        str(ROOT / "csrc"),
        "-isystem",
        str(header_folder()),
    )
    assert len(SOURCES) == 4
    for source in SOURCES:
        subprocess.run(
            [str(NVCC), *options, "-c", str(source), "-o", str(tmp_path / "plugin.o")], check=True
        )
