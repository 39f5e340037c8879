"""Layouts of tensors that bridge and attention take on a CUDA device, on the emulated one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import reference
from tests.ops.devices import mapped
from tests.ops.op import Arguments, noise
from tests.ops.registry import OPS
from tests.simt.emulated import (
    DTYPES,
    STREAM,
    EmulatedArray,
    EmulationError,
    call,
    emulated_device,
    rounded,
)
from tests.tolerances import allowed_error

LAYOUTS = ("dense", "last", "padded", "shifted")
"""Dense; channels-last; with three or more channels between voxels; dense but not aligned."""

GROUP = 8
"""Channels of a vector, at most."""

CASES = (((1, 1, 1), 3), ((2, 3, 4), 8), ((3, 2, 6), 8), ((1, 5, 8), 16), ((5, 2, 3), 8))
"""Sizes whose rows the attention reads in groups of 2, 4 or 8 voxels, the bridge of 1 or 2; and
channels that fill groups, or not."""

ROUNDINGS = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Of the convolved planes and of the result."""

on_every_layout = pytest.mark.parametrize("layout", LAYOUTS)
on_every_type = pytest.mark.parametrize("dtype", DTYPES)
in_every_case = pytest.mark.parametrize(("size", "n_c"), CASES)


def placed(array: NDArray[np.float32], layout: str, dtype: str, fill: float) -> EmulatedArray:
    """A tensor (B, C, D, H, W) on the device in a layout; what is between voxels is `fill`."""
    n_b, n_c, *size = array.shape
    if layout == "shifted":
        memory = np.full((n_b, n_c + 1, *size), fill, np.float32)
        memory[:, 1:] = array
        return EmulatedArray(memory, dtype).cropped(slice(1, None))
    padding = -n_c % GROUP + GROUP if layout == "padded" else 0
    memory = np.full((n_b, *size, n_c + padding), fill, np.float32)
    memory[..., :n_c] = np.moveaxis(array, 1, -1)
    tensor = np.moveaxis(memory, -1, 1)
    return EmulatedArray(
        np.ascontiguousarray(tensor) if layout == "dense" else tensor, dtype
    ).cropped(slice(0, n_c))


def whole(tensor: EmulatedArray) -> NDArray[Any]:
    """All memory of a tensor, also that between its voxels."""
    memory: NDArray[Any] = tensor.array.base
    return memory


def run(name: str, given: Arguments, layout: str, dtype: str, seed: int = 0) -> NDArray[Any]:
    """The op's result for features that are rounded to a type, in a layout."""
    op = OPS[name]
    there = mapped(EmulatedArray, tuple(given.values()))
    arguments = dict(zip(given, there, strict=True)) | mapped_outputs(name, given)
    for key in set(op.floats) & set(given):
        arguments[key] = placed(given[key], layout, dtype, np.nan)
    first = given[op.floats[0]]
    out = placed(np.zeros_like(first), layout, dtype, 77.0)
    between = whole(out) != 0
    before = whole(out)[between].copy()
    with emulated_device(seed):
        op.function(**arguments | {"out": out}, stream=STREAM)
    assert np.array_equal(whole(out)[between], before)
    return out.get()


def mapped_outputs(name: str, given: Arguments) -> Arguments:
    outputs = OPS[name].outputs(given)
    return {key: EmulatedArray(value) for key, value in outputs.items() if key != "out"}


def example(name: str, seed: int, size: ops.Size, dtype: str, **options: int) -> Arguments:
    given = OPS[name].example(np.random.default_rng(seed), size, **options)
    return given | {key: rounded(given[key], dtype) for key in OPS[name].floats if key in given}


@on_every_layout
@on_every_type
@in_every_case
def test_bridge(layout: str, dtype: str, size: ops.Size, n_c: int) -> None:
    """With more hidden channels than a block sums at a time, or fewer."""
    seed, n_r = n_c + len(dtype), {3: 33}.get(n_c, 3)
    given = example("semantic_bridge", seed, size, dtype, n_r=n_r, n_c=n_c)
    result = run("semantic_bridge", given, layout, dtype, seed)
    on_cpu, exact = ops.semantic_bridge(**given), reference.semantic_bridge(**given)
    allowed = allowed_error(on_cpu, exact) + ROUNDINGS[dtype] * np.abs(exact).max()
    assert np.abs(result - exact).max() <= allowed
    assert np.array_equal(result, run("semantic_bridge", given, "dense", dtype))


@on_every_layout
@on_every_type
@in_every_case
def test_attention(layout: str, dtype: str, size: ops.Size, n_c: int) -> None:
    seed, n_below = n_c + len(dtype), {8: 13}.get(n_c, 16)
    given = example("semantic_attention", seed, size, dtype, n_c=n_c, n_below=n_below)
    result = run("semantic_attention", given, layout, dtype, seed)
    on_cpu, exact = ops.semantic_attention(**given), reference.semantic_attention(**given)
    allowed = allowed_error(on_cpu, exact) + ROUNDINGS[dtype] * np.abs(exact).max()
    assert np.abs(result - exact).max() <= allowed


@pytest.mark.parametrize("layout", ["dense", "last", "padded"])
def test_infinite_features_change_their_own_voxels_only(layout: str) -> None:
    """Neither hidden channels nor input channels that only fill up a group see them."""
    given = example("semantic_attention", 0, (2, 3, 4), "float16", n_c=8, n_below=5, n_j=3)
    positive = {name: np.abs(getattr(given["weights"], name)) for name in ("w_x", "w_a")}
    given["weights"] = given["weights"]._replace(**positive)
    expected = run("semantic_attention", given, layout, "float16")
    given["encoded"][1, 2, 1, 2, 3] = np.inf
    result = run("semantic_attention", given, layout, "float16")
    assert np.isfinite(result).all()
    assert (result != expected)[1, :, 2:, 4:, 6:].any()
    result[1, :, 2:, 4:, 6:] = expected[1, :, 2:, 4:, 6:]
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("name", ["semantic_bridge", "semantic_attention"])
def test_in_place(name: str) -> None:
    given = example(name, 0, (2, 3, 4), "float32", n_c=8)
    key = OPS[name].floats[0]
    expected = run(name, given, "last", "float32")
    there = mapped(EmulatedArray, tuple(given.values()))
    arguments = dict(zip(given, there, strict=True)) | mapped_outputs(name, given)
    for feature in set(OPS[name].floats) & set(given):
        arguments[feature] = placed(given[feature], "last", "float32", np.nan)
    with emulated_device():
        OPS[name].function(**arguments | {"out": arguments[key]}, stream=STREAM)
    assert np.array_equal(arguments[key].get(), expected)


def refused(given: Arguments, message: str, error: type[Exception] = InputError) -> None:
    arguments = {key: mapped(EmulatedArray, value) for key, value in given.items()}
    scratch = EmulatedArray(np.empty(16_000_000, np.float32))
    with emulated_device(), pytest.raises(error, match=message):
        ops.semantic_bridge(**arguments, scratch=scratch, stream=STREAM)


def test_other_layouts_are_refused() -> None:
    given = example("semantic_bridge", 0, (2, 3, 4), "float32")
    given["out"] = np.zeros_like(given["x"])
    flipped = given["x"][:, :, ::-1]
    refused(
        given | {"x": flipped},
        r"semantic_bridge: x: expected a contiguous or channels-last array on a CUDA device, "
        r"got strides \(168, 24, -12, 4, 1\) of shape \(2, 7, 2, 3, 4\)",
    )
    last = np.moveaxis(np.zeros((2, 2, 3, 4, 7), np.float32), -1, 1)
    refused(
        given | {"out": last},
        "semantic_bridge: x, reduced, out: expected all to be contiguous or all to be channels-la",
    )


def test_a_cpu_takes_dense_rows_only() -> None:
    given = example("semantic_bridge", 0, (2, 3, 4), "float32")
    last = np.moveaxis(np.zeros((2, 2, 3, 4, 7), np.float32), -1, 1)
    with pytest.raises(InputError, match=r"x: expected .*, whose last axis is not contiguous"):
        ops.semantic_bridge(**given | {"x": last})


def test_more_elements_than_an_index_can_count_are_refused() -> None:
    """Memory that is never touched costs nothing."""
    given = example("semantic_bridge", 0, (1, 1, 1), "float32", n_c=1, n_r=1, n_cases=1)
    large = np.empty((1, 1, 2**11, 2**10, 2**10), np.float32)
    refused(
        given | {"x": large, "reduced": large, "out": large},
        r"semantic_bridge: expected fewer than 2\^31 elements per case on a CUDA device, got "
        "2147483648; cut the volume into windows",
        OptionsError,
    )


@pytest.mark.parametrize(
    ("name", "channels"),
    [("semantic_bridge", {"n_r": 495}), ("semantic_attention", {"n_below": 377})],
)
def test_channels_beyond_the_shared_memory_are_refused(name: str, channels: dict[str, int]) -> None:
    given = OPS[name].example(np.random.default_rng(0), (1, 1, 1), **channels)
    given = OPS[name].outputs(given) | given
    there = {key: mapped(EmulatedArray, value) for key, value in given.items()}
    with (
        emulated_device(),
        pytest.raises(
            OptionsError,
            match=rf"{name}: the channels need \d+ bytes of a block's shared memory, expected at "
            "most 49152; use fewer channels, or the CPU",
        ),
    ):
        OPS[name].function(**there, stream=STREAM)


def test_unaligned_groups_are_an_error_of_the_emulation() -> None:
    """So that a kernel that reads them cannot pass: on a GPU it would end the process."""
    memory = noise(np.random.default_rng(0), 9)
    call("pack", memory[:8])
    with pytest.raises(EmulationError, match="an access of 16 bytes is not aligned"):
        call("pack", memory[1:])
