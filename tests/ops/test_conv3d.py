"""`conv3d` on the CPU, and on a device, emulated or real, whose float16 goes to tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError
from fastbts.ops import network
from fastbts.ops import network_reference as reference
from tests.ops.devices import available_devices, put
from tests.simt.emulated import STREAM, EmulatedArray, emulated_device

Size = tuple[int, int, int]
SEEDS = (0, 1, 2)
HALF = 2.0**-11
"""Rounding to float16."""


class Gpu(NamedTuple):
    """A device: "cuda", or "emulated" with a seed for the order of its threads."""

    name: str
    seed: int = 0

    def put(self, array: Any, *, is_half: bool = False) -> Any:
        """An array on the device; other values as they are."""
        if not isinstance(array, np.ndarray):
            return array
        if self.name == "emulated":
            return EmulatedArray(array, "float16" if is_half else "float32")
        return put(array.astype(np.float16) if is_half else array)

    @contextmanager
    def running(self, **plan: Any) -> Iterator[Any]:
        """Within it ops run there; gives their stream."""
        if self.name == "cuda":
            yield None
            return
        with emulated_device(self.seed, **plan):
            yield STREAM


GPUS = [*(Gpu("emulated", seed) for seed in SEEDS), *(Gpu(d) for d in available_devices()[1:])]
on_every_gpu = pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: f"{gpu.name}-{gpu.seed}")


def half(array: NDArray[Any]) -> NDArray[np.float32]:
    """Values that float16 can hold."""
    return array.astype(np.float16).astype(np.float32)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return half(rng.standard_normal(shape))


def as_read(x: NDArray[np.float32], affine: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """What the tensor cores read: activated in float32, rounded to float16."""
    if affine is None:
        return x
    scale, shift = affine[:, :, None, None, None].swapaxes(0, 1)
    y = x * scale + shift
    return half(np.where(y > 0, y, np.float32(0.01) * y))


class Conv:
    """Random arguments of a convolution, and its results."""

    def __init__(
        self,
        size: Size,
        n_in: int = 5,
        n_out: int = 7,
        *,
        kernel: int = 3,
        stride: int = 1,
        brick: int = 64,
        n_cases: int = 1,
        with_affine: bool = True,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.stride, self.brick = stride, brick
        self.x = random(rng, n_cases, *size, n_in)
        self.weight = half(random(rng, n_out, n_in, *[kernel] * 3) / np.sqrt(n_in * kernel**3))
        self.affine = random(rng, n_cases, 2, n_in) if with_affine else None
        self.bias = random(rng, n_out)
        read = as_read(self.x, self.affine)
        self.exact = reference.conv3d(read, self.weight, None, self.bias, stride)

    def stats(self) -> NDArray[np.float32]:
        size = self.exact.shape[1:4]
        n_bricks = network.conv3d_bricks(size, self.brick)
        return np.full((len(self.x), self.weight.shape[0], n_bricks, 2), np.nan, np.float32)

    def on_cpu(self, stats: NDArray[np.float32]) -> Any:
        return network.conv3d(
            self.x,
            network.conv_tiles(self.weight),
            affine=self.affine,
            bias=self.bias,
            stride=self.stride,
            brick=self.brick,
            stats=stats,
            n_columns=len(self.weight),
        )

    def on_gpu(self, gpu: Gpu, stats: NDArray[np.float32], **plan: Any) -> Any:
        """The result there; `stats` are written too."""
        out = gpu.put(np.full(self.exact.shape, 77, np.float32), is_half=True)
        sums = gpu.put(stats)
        with gpu.running(**plan) as stream:
            network.conv3d(
                gpu.put(self.x, is_half=True),
                gpu.put(network.conv_tiles(self.weight), is_half=True),
                affine=gpu.put(self.affine),
                bias=gpu.put(self.bias),
                stride=self.stride,
                brick=self.brick,
                out=out,
                stats=sums,
                stream=stream,
            )
        stats[...] = sums.get()
        return out.get().astype(np.float32)


def check_stats(stats: NDArray[np.float32], exact: NDArray[np.float64]) -> None:
    """Sums over all bricks, which have float32's accuracy."""
    flat = exact.reshape(len(exact), -1, exact.shape[-1])
    wanted = np.stack([flat.sum(1), (flat**2).sum(1)], -1)
    scale = np.stack([np.abs(flat).sum(1), (flat**2).sum(1)], -1)
    assert (np.abs(stats.sum(2, dtype=np.float64) - wanted) <= 1e-5 * scale + 1e-6).all()


SIZES: tuple[Size, ...] = ((1, 1, 1), (5, 9, 11), (4, 8, 8), (3, 2, 17))


LAUNCHES = {"small": (1, 64), "large": (1, 256), "stride 2": (2, 64)}
"""Stride and brick of each kernel."""

every_kernel = pytest.mark.parametrize(("stride", "brick"), LAUNCHES.values(), ids=LAUNCHES)


@pytest.mark.parametrize("size", SIZES)
@every_kernel
@pytest.mark.parametrize(("n_in", "n_out"), [(5, 7), (32, 33)])
def test_the_cpu_agrees_with_the_reference(
    size: Size, stride: int, brick: int, n_in: int, n_out: int
) -> None:
    conv = Conv(size, n_in, n_out, stride=stride, brick=brick, n_cases=2)
    exact = reference.conv3d(conv.x, conv.weight, conv.affine, conv.bias, stride)
    out = conv.on_cpu(stats := conv.stats())
    assert np.abs(out - exact).max() <= 1e-5 * np.abs(exact).max()
    check_stats(stats, exact)


@on_every_gpu
@every_kernel
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_agrees_with_the_reference(
    size: Size, stride: int, brick: int, gpu: Gpu
) -> None:
    conv = Conv(size, stride=stride, brick=brick, seed=gpu.seed)
    out = conv.on_gpu(gpu, stats := conv.stats())
    assert np.abs(out - conv.exact).max() <= 2 * HALF * np.abs(conv.exact).max()
    check_stats(stats, conv.exact)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("n_in", "n_out"), [(16, 16), (8, 32), (24, 40), (64, 64)])
@pytest.mark.parametrize(("with_affine", "brick"), [(True, 64), (False, 64), (True, 256)])
@pytest.mark.parametrize("gpu", GPUS[::3], ids=lambda gpu: gpu.name)
def test_any_number_of_channels(
    gpu: Gpu, n_in: int, n_out: int, kernel: int, with_affine: bool, brick: int
) -> None:
    """Rows of 16 bytes are read and written at once; others one by one."""
    conv = Conv(
        (2, 3, 9), n_in, n_out, kernel=kernel, with_affine=with_affine, brick=brick, n_cases=2
    )
    out = conv.on_gpu(gpu, stats := conv.stats())
    assert np.abs(out - conv.exact).max() <= 2 * HALF * np.abs(conv.exact).max()
    check_stats(stats, conv.exact)


@on_every_gpu
def test_two_runs_give_the_same_bits(gpu: Gpu) -> None:
    conv = Conv((5, 9, 11), 20, 10)
    first, second = conv.stats(), conv.stats()
    again = gpu._replace(seed=gpu.seed + 3)
    assert np.array_equal(conv.on_gpu(gpu, first), conv.on_gpu(again, second))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("seed", SEEDS)
@every_kernel
def test_a_missing_barrier_gives_wrong_results(seed: int, stride: int, brick: int) -> None:
    conv = Conv((4, 8, 8), 20, 10, stride=stride, brick=brick)
    out = conv.on_gpu(Gpu("emulated", seed), conv.stats(), barriers=False)
    assert not np.allclose(out, conv.exact, atol=0.05)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
@pytest.mark.parametrize("n_out", [3, 8])
def test_a_transposed_convolution_writes_channels_of_a_larger_buffer(
    device: str, n_out: int
) -> None:
    rng = np.random.default_rng(0)
    x, affine = random(rng, 2, 2, 3, 9, 6), random(rng, 2, 2, 6)
    weight, bias = random(rng, 6, n_out, 2, 2, 2), random(rng, n_out)
    exact = reference.upconv(as_read(x, affine), weight, None, bias)
    buffer = np.full((2, 4, 6, 18, n_out + 4), 77, np.float32)
    tiles, spread_bias = network.upconv_tiles(weight), np.tile(bias, 8)
    if device == "cpu":
        network.conv3d(x, tiles, affine=affine, bias=spread_bias, spread=2, out=buffer[..., :n_out])
    else:
        there = EmulatedArray(buffer, "float16")
        part = EmulatedArray(there.array[..., :n_out])
        part.dtype = "float16"
        with emulated_device():
            network.conv3d(
                EmulatedArray(x, "float16"),
                EmulatedArray(tiles, "float16"),
                affine=EmulatedArray(affine),
                bias=EmulatedArray(spread_bias),
                spread=2,
                out=part,
                stream=STREAM,
            )
        buffer = there.get()
    assert np.abs(buffer[..., :n_out] - exact).max() <= 3 * HALF * np.abs(exact).max()
    assert (buffer[..., n_out:] == 77).all()


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_a_head_writes_float32_with_channels_first(device: str) -> None:
    """Reading a part of a buffer's channels."""
    rng = np.random.default_rng(0)
    x, weight = random(rng, 1, 3, 4, 9, 12), random(rng, 8, 3, 2, 2, 2)
    exact = reference.upconv(x[..., 4:], weight)
    logits = np.full((1, 3, 6, 8, 18), 77, np.float32)
    out, tiles = logits.transpose(0, 2, 3, 4, 1), network.upconv_tiles(weight)
    if device == "cpu":
        network.conv3d(x[..., 4:], tiles, spread=2, out=out)
    else:
        there = EmulatedArray(x, "float16")
        part = EmulatedArray(there.array[..., 4:])
        part.dtype = "float16"
        with emulated_device():
            network.conv3d(
                part,
                EmulatedArray(tiles, "float16"),
                spread=2,
                out=EmulatedArray(out),
                stream=STREAM,
            )
    assert np.abs(out - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"stride": 3}, OptionsError, "stride: expected 1, or 2 with 27 taps, got 3"),
        (
            {"stride": 2, "brick": 256, "out": np.zeros((1, 1, 2, 2, 7), np.float32)},
            OptionsError,
            "brick: expected 64, or 256 with stride 1, got 256",
        ),
        ({"spread": 2}, OptionsError, "spread: expected 1, or 2 with 1 tap, got 2"),
        ({"bias": np.zeros(6, np.float32)}, InputError, r"bias: expected shape \(7\), got \(6\)"),
        (
            {"affine": np.zeros((1, 2, 6), np.float32)},
            InputError,
            r"affine: expected shape \(1, 2, 5\), got \(1, 2, 6\)",
        ),
        (
            {"tiles": np.zeros((1, 1, 8, 32, 16), np.float32)},
            InputError,
            "tiles: expected 1 or 27 taps, got 8",
        ),
        (
            {"tiles": np.zeros((1, 2, 27, 32, 16), np.float32)},
            InputError,
            r"tiles: expected shape \(1, 1, 27, 32, 16\), got \(1, 2, 27, 32, 16\)",
        ),
        (
            {"stats": np.zeros((1, 7, 2, 2), np.float32)},
            InputError,
            r"stats: expected shape \(1, 7, 1, 2\), got \(1, 7, 2, 2\)",
        ),
        (
            {"out": np.zeros((1, 2, 3, 5, 7), np.float32)},
            InputError,
            r"out: expected shape \(1, 2, 3, 4, 7\), got \(1, 2, 3, 5, 7\)",
        ),
        (
            {"x": np.zeros((1, 0, 3, 4, 5), np.float32)},
            InputError,
            "x: expected at least one voxel and channel",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    conv = Conv((2, 3, 4))
    given = {
        "x": conv.x,
        "tiles": network.conv_tiles(conv.weight),
        "out": np.zeros((1, 2, 3, 4, 7), np.float32),
    }
    with pytest.raises(kind, match="conv3d: " + message):
        network.conv3d(**(given | change))


def test_the_device_takes_float16_only() -> None:
    conv = Conv((1, 1, 1))
    tiles, out = network.conv_tiles(conv.weight), np.zeros(conv.exact.shape, np.float32)
    refused = pytest.raises(InputError, match="x, tiles: expected float16 on a CUDA device")
    with emulated_device(), refused:
        network.conv3d(*map(EmulatedArray, (conv.x, tiles)), out=EmulatedArray(out), stream=STREAM)
