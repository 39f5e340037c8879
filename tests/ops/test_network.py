"""The layers of `fastbts.ops.network` but for `conv3d`, on the CPU and on a device."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError
from fastbts.ops import network
from fastbts.ops import network_reference as reference
from tests.ops.test_conv3d import GPUS, HALF, Gpu, half, random

EXACT = 1e-5
"""Relative error of float32 sums."""
HALF_OF_BFLOAT16 = 2**-8
"""Of its last digit, relative."""


class Layer:
    """A layer on the CPU, or on a `gpu`, where arrays in `floats` are float16."""

    def __init__(self, gpu: Gpu | None) -> None:
        self.gpu, self.rounding = gpu, EXACT if gpu is None else 2 * HALF

    def run(
        self, op: Callable[..., None], *, floats: tuple[str, ...] = (), **given: Any
    ) -> dict[str, Any]:
        """Runs an op; returns its arrays afterwards."""
        if self.gpu is None:
            op(**given)
            return given
        there = {n: self.gpu.put(value, is_half=n in floats) for n, value in given.items()}
        with self.gpu.running() as stream:
            op(**there, stream=stream)
        return {name: fetched(array) for name, array in there.items()}


def fetched(value: Any) -> Any:
    return value.get().astype(np.float32) if hasattr(value, "get") else value


@pytest.fixture(params=[None, *GPUS], ids=lambda gpu: f"{gpu.name}-{gpu.seed}" if gpu else "cpu")
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


def close(got: NDArray[Any], exact: NDArray[Any], error: float) -> bool:
    assert got.shape == exact.shape
    return bool(np.abs(got - exact).max() <= error * np.abs(exact).max())


@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("n_bricks", [1, 70])
def test_fold_stats(layer: Layer, n_bricks: int, with_weights: bool) -> None:
    rng = np.random.default_rng(0)
    y = random(rng, 2, n_bricks, 3, 4, 5) + np.float32(2)
    stats = np.stack([y.sum((2, 3)), (y**2).sum((2, 3))], -1).transpose(0, 2, 1, 3)
    more = {"weight": random(rng, 5), "bias": random(rng, 5), "film": random(rng, 2, 2, 5)}
    more = more if with_weights else {}
    affine, mean = np.zeros((2, 2, 5), np.float32), np.zeros((2, 5), np.float32)
    there = layer.run(
        network.fold_stats,
        stats=np.ascontiguousarray(stats),
        n_voxels=12 * n_bricks,
        affine=affine,
        mean=mean,
        **more,
    )
    assert close(there["affine"], reference.fold_stats(y, **more), EXACT)
    assert close(there["mean"], y.mean((1, 2, 3), dtype=np.float64), EXACT)


def test_constant_channels_stay_finite(layer: Layer) -> None:
    stats = np.float32([[[[3e4, 3e8]]]])  # 3 voxels of 1e4, whose variance is 0
    affine = np.zeros((1, 2, 1), np.float32)
    there = layer.run(network.fold_stats, stats=stats, n_voxels=3, affine=affine)
    assert there["affine"][0, 0, 0] == pytest.approx(1e-5**-0.5)


@pytest.mark.parametrize("with_affine", [True, False])
def test_activate_changes_the_layout(layer: Layer, with_affine: bool) -> None:
    rng = np.random.default_rng(0)
    x, affine = random(rng, 2, 3, 4, 5, 6), random(rng, 2, 2, 6) if with_affine else None
    out = np.zeros((2, 6, 3, 4, 5), np.float32).transpose(0, 2, 3, 4, 1)
    there = layer.run(network.activate, floats=("x",), x=x, affine=affine, out=out)
    assert close(there["out"], reference.activated(x, affine), EXACT)
    rounded = layer.run(network.activate, floats=("out",), x=x, affine=affine, out=np.zeros_like(x))
    assert close(rounded["out"], reference.activated(x, affine), layer.rounding)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("fuses", [True, False])
def test_pack(layer: Layer, patch: int, fuses: bool) -> None:
    """Modality 1 is missing; modality 2 has a voxel only where blocks do not begin."""
    rng = np.random.default_rng(0)
    volume = random(rng, 2, 3, 4, 6, 8) * (rng.random((2, 3, 4, 6, 8)) < 0.5)
    volume[0, 1:] = 0
    volume[0, 2, 1, 1, 1] = 3
    fusion = {"gate": random(rng, 3, 3), "gate_bias": random(rng, 3), "background": random(rng, 3)}
    fusion = fusion if fuses else {}
    exact = reference.pack(volume, patch, **fusion)
    out, scratch = np.zeros(exact.shape, np.float32), np.zeros((2, 2, 3), np.float32)
    there = layer.run(
        network.pack,
        floats=("out",),
        volume=volume,
        patch=patch,
        out=out,
        scratch=scratch if fuses else None,
        **fusion,
    )
    assert close(there["out"], exact, layer.rounding)


def bfloat16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to the nearest number whose lower 16 bits are 0, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return (upper << 16).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8])
@pytest.mark.parametrize("channels_first", [True, False])
def test_pack_on_the_cpu(patch: int, dtype: Any, channels_first: bool) -> None:
    """As OpenVINO takes it: with channels first, in bfloat16 or int8."""
    rng = np.random.default_rng(0)
    volume = random(rng, 2, 3, 4, 6, 22) * (rng.random((2, 3, 4, 6, 22)) < 0.5)
    volume[0, 0, 0, 0, :3] = 400, -400, 0.25
    fusion = {"gate": random(rng, 3, 3), "gate_bias": random(rng, 3), "background": random(rng, 3)}
    scratch, step = np.zeros((2, 2, 3), np.float32), 0.02
    exact = reference.pack(volume, patch, **fusion).astype(np.float32)
    out = np.zeros(np.moveaxis(exact, -1, 1).shape if channels_first else exact.shape, dtype)
    out = np.moveaxis(out, 1, -1) if channels_first else out
    network.pack(volume, patch, **fusion, step=step, out=out, scratch=scratch)
    if dtype == np.int8:
        assert {-128, 127} <= set(out.ravel())
        assert np.abs(out - (exact / step).clip(-128, 127)).max() < 0.5001
        return
    got = out if dtype == np.float32 else (out.astype(np.uint32) << 16).view(np.float32)
    rounding = EXACT if dtype == np.float32 else 1.01 * HALF_OF_BFLOAT16
    np.testing.assert_allclose(got, exact, rtol=rounding)


def test_pack_rounds_as_numpy_does() -> None:
    volume = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 0]).reshape(1, 1, 1, 1, 6)
    steps, bits = np.zeros((1, 1, 1, 6, 1), np.int8), np.zeros((1, 1, 1, 6, 1), np.uint16)
    network.pack(volume, 1, out=steps)
    assert steps.ravel().tolist() == [0, 2, 2, 0, -2, 0]
    volume = np.uint32([0x3F808000, 0x3F818000, 0x7F800000, 0x7FC00001, 0x80000000, 0]).view("f4")
    network.pack(volume.reshape(1, 1, 1, 1, 6), 1, out=bits)
    assert bits.ravel().tolist() == [0x3F80, 0x3F82, 0x7F80, 0x7FC0, 0, 0]


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_unpack(patch: int, bits: bool, channels_first: bool, n_threads: int) -> None:
    rng = np.random.default_rng(0)
    x = bfloat16(random(rng, 2, 3, 4, 19, 2 * patch**3))
    given = (x.view(np.uint32) >> 16).astype(np.uint16) if bits else x
    if channels_first:
        given = np.moveaxis(np.ascontiguousarray(np.moveaxis(given, -1, 1)), 1, -1)
    expected = reference.unpack(x, patch)
    out = np.zeros(expected.shape, np.float32)
    network.unpack(given, patch, out=out, n_threads=n_threads)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("activation", [None, "leaky_relu", "gelu"])
@pytest.mark.parametrize("n_in", [1, 33, 200])
def test_linear(layer: Layer, n_in: int, activation: str | None) -> None:
    rng = np.random.default_rng(0)
    x, weight = random(rng, 3, n_in), random(rng, 7, n_in) / np.float32(np.sqrt(n_in))
    bias, out = random(rng, 7), random(rng, 3, 7)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + bias + out
    if activation == "leaky_relu":
        exact = np.where(exact > 0, exact, 0.01 * exact)
    if activation == "gelu":
        exact = 0.5 * exact * (1 + np.vectorize(erf)(exact / np.sqrt(2)))
    there = layer.run(
        network.linear, x=x, weight=weight, bias=bias, add=out, activation=activation, out=out
    )
    assert close(there["out"], exact, EXACT)


def test_similarity(layer: Layer) -> None:
    rng = np.random.default_rng(0)
    image, text, bias = random(rng, 2, 2, 3, 5, 9), random(rng, 3, 9), random(rng, 3)
    image[0, 0, 0, 0] = 0
    exact = reference.similarity(image, text, 7.5, bias)
    out = np.zeros(exact.shape, np.float32)
    there = layer.run(
        network.similarity,
        floats=("image", "out"),
        image=image,
        text=text,
        scale=7.5,
        bias=bias,
        out=out,
    )
    assert close(there["out"], exact, layer.rounding)
    assert np.allclose(there["out"][0, :, 0, 0, 0], half(bias)), "of a vector of length 0"


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 4, 7)])
def test_text_reads(layer: Layer, size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    query, key, value = random(rng, 2, 3, 9), random(rng, 2, *size, 9), random(rng, 2, *size, 9)
    exact = reference.attend(query, key.reshape(2, -1, 9), value.reshape(2, -1, 9))
    there = layer.run(
        network.text_reads,
        floats=("key", "value"),
        query=query,
        key=key,
        value=value,
        out=np.zeros((2, 3, 9), np.float32),
        scratch=np.zeros((2, 3, int(np.prod(size))), np.float32),
    )
    assert close(there["out"], exact, EXACT)


@pytest.mark.parametrize("n_prompts", [1, 3, 8])
def test_image_reads(layer: Layer, n_prompts: int) -> None:
    rng = np.random.default_rng(0)
    query, key, value = random(rng, 2, 3, 4, 7, 9), *random(rng, 2, 2, n_prompts, 9)
    exact = reference.attend(query.reshape(2, -1, 9), key, value).reshape(query.shape)
    there = layer.run(
        network.image_reads,
        floats=("query", "out"),
        query=query,
        key=key,
        value=value,
        out=np.zeros_like(query),
    )
    assert close(there["out"], exact, layer.rounding)


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: network.fold_stats(zeros(1, 5, 2, 2), 0, affine=zeros(1, 2, 5)),
            OptionsError,
            "fold_stats: n_voxels: expected at least 1, got 0",
        ),
        (
            lambda: network.fold_stats(zeros(1, 5, 2, 2), 3, affine=zeros(1, 2, 4)),
            InputError,
            r"fold_stats: affine: expected shape \(1, 2, 5\), got \(1, 2, 4\)",
        ),
        (
            lambda: network.fold_stats(
                zeros(1, 5, 2, 2), 3, weight=zeros(5), affine=zeros(1, 2, 5)
            ),
            InputError,
            "fold_stats: weight, bias: expected both or none",
        ),
        (
            lambda: network.activate(zeros(1, 2, 3, 4, 5), out=zeros(1, 2, 3, 4, 6)),
            InputError,
            r"activate: out: expected shape \(1, 2, 3, 4, 5\), got \(1, 2, 3, 4, 6\)",
        ),
        (
            lambda: network.activate(
                zeros(1, 2, 3, 4, 5), affine=zeros(1, 2, 4), out=zeros(1, 2, 3, 4, 5)
            ),
            InputError,
            r"activate: affine: expected shape \(1, 2, 5\), got \(1, 2, 4\)",
        ),
        (
            lambda: network.pack(zeros(1, 4, 2, 2, 2), 3, out=zeros(1, 1, 1, 1, 32)),
            OptionsError,
            "pack: patch: expected 1 or 2, got 3",
        ),
        (
            lambda: network.pack(zeros(1, 4, 2, 3, 2), 2, out=zeros(1, 1, 1, 1, 32)),
            InputError,
            "pack: volume: expected sizes that are multiples of 2",
        ),
        (
            lambda: network.pack(zeros(1, 1, 2, 2, 2), 1, step=0, out=zeros(1, 2, 2, 2, 1)),
            OptionsError,
            "pack: step: expected more than 0, got 0",
        ),
        (
            lambda: network.unpack(zeros(1, 1, 1, 1, 8), 3, out=zeros(1, 1, 3, 3, 3)),
            OptionsError,
            "unpack: patch: expected 1 or 2, got 3",
        ),
        (
            lambda: network.unpack(zeros(1, 1, 1, 1, 12), 2, out=zeros(1, 1, 2, 2, 2)),
            InputError,
            "unpack: x: expected a multiple of 8 channels, got 12",
        ),
        (
            lambda: network.unpack(zeros(1, 1, 1, 1, 8), 2, out=zeros(1, 1, 2, 2, 3)),
            InputError,
            r"unpack: out: expected shape \(1, 1, 2, 2, 2\), got \(1, 1, 2, 2, 3\)",
        ),
        (
            lambda: network.unpack(np.zeros((1, 1, 1, 1, 8), np.int8), 2, out=zeros(1, 1, 2, 2, 2)),
            InputError,
            "unpack: x: expected float32 or uint16, got int8",
        ),
        (
            lambda: network.linear(zeros(2, 3), zeros(4, 5), out=zeros(2, 4)),
            InputError,
            r"linear: weight: expected shape \(4, 3\), got \(4, 5\)",
        ),
        (
            lambda: network.similarity(
                zeros(1, 1, 1, 1, 4), zeros(9, 4), 1, zeros(9), out=zeros(1, 9, 1, 1, 1)
            ),
            OptionsError,
            "similarity: text: expected 1 to 8 prompts, got 9",
        ),
        (
            lambda: network.text_reads(
                zeros(1, 3, 4),
                zeros(1, 1, 1, 2, 4),
                zeros(1, 1, 1, 2, 4),
                out=zeros(1, 3, 4),
                scratch=zeros(1, 3, 1),
            ),
            InputError,
            r"text_reads: scratch: expected shape \(1, 3, 2\), got \(1, 3, 1\)",
        ),
        (
            lambda: network.image_reads(
                zeros(1, 1, 1, 2, 4), zeros(1, 3, 5), zeros(1, 3, 5), out=zeros(1, 1, 1, 2, 4)
            ),
            InputError,
            r"image_reads: key: expected shape \(1, 3, 4\), got \(1, 3, 5\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    call: Callable[[], None], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call()
