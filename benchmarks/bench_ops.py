"""Every op at BraTS size: verified against its twin on a small input, then timed next to libraries that do the same work.

    pytest benchmarks/bench_ops.py --benchmark-json ops.json

Op and peers take turns, each right after calls of its own that are not timed. `extra_info` of each benchmark holds the bytes
that the op must move (inputs once, outputs once), the bandwidth this makes and its share of that of a copy measured in the
same run with as many threads, the peers' medians, how glibc's malloc was tuned, and the machine's load.

By default malloc gives the memory of large temporaries back and takes it anew, page by page, which can be half of a peer's
time. `make bench` therefore runs this twice, the second time with GLIBC_TUNABLES that keep it: peers at their best.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.op_peers import (
    attend_with_torch,
    attention_tensors,
    blend_with,
    bridge_tensors,
    bridge_with_torch,
    label_with,
    numpy_box,
    numpy_normalize,
    numpy_window,
    project_with_torch,
    see_with_torch,
)
from fastbts import ops
from fastbts.ops import AttentionWeights, Planes, PlaneWeights, reference

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers

ROUNDS, SHORT_ROUNDS = (
    7,
    35,
)  # of ops that take longer than 3 ms, and of others, whose times scatter more
VOLUME = (155, 240, 240)
TENSOR = (144, 176, 144)
HALF = (0.5, 0.5, 0.5)

Peers = Mapping[str, Callable[[], Any]]


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def optional(name: str) -> Any:
    """A peer's module, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


@cache
def copy_bandwidth(n_threads: int) -> float:
    """Bytes read and written per second by np.copyto, best of five; 256 MiB, far more than any cache."""
    sources, targets = (
        [np.ones(2**26 // n_threads, np.float32) for _ in range(n_threads)] for _ in range(2)
    )
    seconds = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            seconds.append(time.perf_counter() - began)
    return 2 * 2**28 / min(seconds)


def warm_up(job: Callable[[], Any]) -> None:
    """Calls it for some milliseconds, so that caches and threads are its own; before, OpenMP's threads of a peer spin on."""
    time.sleep(0.02)
    began = time.perf_counter()
    while time.perf_counter() - began < 0.005:
        job()


def seconds_of(job: Callable[[], Any]) -> float:
    """Of one call, right after others."""
    warm_up(job)
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


Measure = Callable[..., None]


@pytest.fixture(params=(1, 2))
def n_threads(request: pytest.FixtureRequest) -> int:
    if torch := optional("torch"):
        torch.set_num_threads(request.param)
    return request.param


@pytest.fixture
def measure(benchmark: Any, n_threads: int) -> Measure:
    """Times an op and its peers, in turns, and writes `extra_info`."""

    def run(
        op: Callable[[], Any], peers: Peers, n_bytes: int, target_ms: float | None = None
    ) -> None:
        times: dict[str, list[float]] = {name: [] for name in peers}

        def peers_turn() -> None:
            for name, peer in peers.items():
                times[name].append(1000 * seconds_of(peer))
            warm_up(op)

        benchmark.pedantic(
            op, setup=peers_turn, rounds=ROUNDS if seconds_of(op) > 0.003 else SHORT_ROUNDS
        )
        peers_ms = {name: round(statistics.median(values), 3) for name, values in times.items()}
        ms = 1000 * benchmark.stats.stats.median
        rate = n_bytes / ms * 1000
        benchmark.extra_info.update(
            n_threads=n_threads,
            median_ms=round(ms, 3),
            best_ms=round(1000 * benchmark.stats.stats.min, 3),
            target_ms=target_ms,
            n_bytes=n_bytes,
            gb_per_s=round(rate / 1e9, 2),
            copy_gb_per_s=round(copy_bandwidth(n_threads) / 1e9, 2),
            share_of_copy=round(rate / copy_bandwidth(n_threads), 3),
            peers_ms=peers_ms,
            times_faster={name: round(peer_ms / ms, 2) for name, peer_ms in peers_ms.items()},
            malloc=os.environ.get("GLIBC_TUNABLES", "default"),
            machine={
                "cpu": platform.processor() or platform.machine(),
                "n_cpus": os.cpu_count(),
                "load": os.getloadavg(),
            },
            versions={
                name: module.__version__
                for name in ("numpy", "scipy", "torch", "monai")
                if (module := optional(name))
            },
        )

    return run


def head(shape: tuple[int, int, int], n_modalities: int = 4) -> NDArray[np.int16]:
    """Noise inside an ellipsoid of about a brain's size; (M, D, H, W)."""
    axes = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
    )
    inside = sum((axis / s) ** 2 for axis, s in zip(axes, (0.9, 0.72, 0.6), strict=True)) < 1
    noise = np.random.default_rng(0).integers(50, 1500, (n_modalities, *shape), np.int16)
    return noise * inside


def normalize(volume: NDArray[Any], n_threads: int) -> NDArray[np.float32]:
    """Box, crop, clip, z-score and cast, without padding."""
    brain = ops.brain_box(volume, n_threads)
    return ops.normalize(volume, brain.bounds, brain.size, n_threads=n_threads)[0]


def test_brain_box(measure: Measure, n_threads: int) -> None:
    small = head((15, 24, 23))
    found = ops.brain_box(small)
    assert (found.bounds, found.n_brain, found.n_nonfinite, found.n_nonzero) == reference.brain_box(
        small
    )
    volume = head(VOLUME)
    measure(
        lambda: ops.brain_box(volume, n_threads),
        {"numpy": lambda: numpy_box(volume)},
        volume.nbytes,
    )


def test_normalize(measure: Measure, n_threads: int) -> None:
    small = head((15, 24, 23))
    box, size = ops.brain_box(small).bounds, ops.brain_box(small).size
    np.testing.assert_allclose(
        normalize(small, n_threads), reference.normalize(small, box, size)[0], atol=1e-5
    )
    volume = head(VOLUME)
    np.testing.assert_allclose(normalize(volume, n_threads), numpy_normalize(volume), atol=1e-2)
    peers = {"numpy": lambda: numpy_normalize(volume)}
    if transforms := optional("monai.transforms"):
        chain = [
            transforms.CropForeground(),
            transforms.NormalizeIntensity(nonzero=True, channel_wise=True),
        ]
        peers["monai"] = lambda: transforms.Compose(chain)(
            volume.astype(np.float32)
        )  # without the percentiles
    n_bytes = volume.nbytes + normalize(volume, n_threads).nbytes
    measure(lambda: normalize(volume, n_threads), peers, n_bytes, target_ms=40)


def windows_of(size: int, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """Origins of eight windows, one in each corner."""
    return np.array(
        [[(n - size) * (b >> i & 1) for i, n in enumerate(shape)] for b in range(8)], np.int32
    )


def test_window(measure: Measure, n_threads: int) -> None:
    small, origins = random(2, 7, 8, 9), windows_of(6, (7, 8, 9))
    np.testing.assert_array_equal(
        ops.window(small, origins, (6, 6, 6)), reference.window(small, origins, (6, 6, 6))
    )
    tensor, origins = random(4, *TENSOR), windows_of(128, TENSOR)
    out = np.empty((8, 4, 128, 128, 128), np.float32)
    peers = {"numpy": lambda: numpy_window(tensor, origins, out)}
    measure(
        lambda: ops.window(tensor, origins, (128, 128, 128), out, n_threads),
        peers,
        tensor.nbytes + out.nbytes,
    )


def test_blend(measure: Measure, n_threads: int) -> None:
    def example(size: int, shape: tuple[int, int, int]) -> Any:
        profile = np.exp(-(np.linspace(-2, 2, size) ** 2)).astype(np.float32)
        return (
            random(8, 3, size, size, size),
            windows_of(size, shape),
            (np.tile(profile, (8, 1)),) * 3,
        )

    logits, origins, weights = example(5, (6, 7, 8))
    total = np.zeros((3, 6, 7, 8), np.float32)
    exact = reference.blend(logits, origins, weights, total)
    ops.blend(logits, origins, weights, total, n_threads)
    np.testing.assert_allclose(total, exact, atol=1e-5)

    logits, origins, weights = example(128, TENSOR)
    total = np.zeros((3, *TENSOR), np.float32)
    profile = weights[0][0]
    weight = profile[:, None, None] * profile[:, None] * profile
    peers = {"numpy": lambda: blend_with(np, logits, origins, weight, total)}
    if torch := optional("torch"):
        tensors = [torch.from_numpy(x) for x in (logits, weight, total)]
        peers["torch"] = lambda: blend_with(torch, tensors[0], origins, tensors[1], tensors[2])
    measure(
        lambda: ops.blend(logits, origins, weights, total, n_threads),
        peers,
        logits.nbytes + 2 * total.nbytes,
        target_ms=60,
    )


def test_label(measure: Measure, n_threads: int) -> None:
    def example(n: tuple[int, int, int], shape: tuple[int, int, int]) -> dict[str, Any]:
        box = tuple((m // 2 - k // 2, m // 2 - k // 2 + k) for k, m in zip(n, shape, strict=True))
        options = {"offset": (0, 0, 0), "box": box, "thresholds": HALF, "values": (2, 1, 4)}
        return {"logits": random(3, *n) - 1, "labels": np.zeros(shape, np.uint8), **options}

    small = example((5, 6, 7), (9, 10, 11))
    expected, counts = reference.label(**small)
    assert ops.label(**small, n_threads=n_threads) == counts
    np.testing.assert_array_equal(small["labels"], expected)

    whole = example((138, 171, 141), VOLUME)
    logits, labels, where = (
        whole["logits"],
        np.zeros(VOLUME, np.uint8),
        tuple(slice(*side) for side in whole["box"]),
    )
    peers = {"numpy": lambda: label_with(np, logits, labels, where)}
    if torch := optional("torch"):
        tensors = torch.from_numpy(logits), torch.zeros(VOLUME, dtype=torch.uint8)
        peers["torch"] = lambda: label_with(torch, *tensors, where)
    measure(
        lambda: ops.label(**whole, n_threads=n_threads),
        peers,
        logits.nbytes + logits[0].size,
        target_ms=15,
    )
    peers["numpy"]()
    np.testing.assert_array_equal(whole["labels"], labels)


def test_resample(measure: Measure, n_threads: int) -> None:
    small = random(2, 5, 6, 7)
    np.testing.assert_allclose(
        ops.resample(small, (9, 4, 8), n_threads), reference.resample(small, (9, 4, 8)), atol=1e-5
    )
    logits, size = random(3, 69, 171, 141), (138, 171, 141)  # slices of 2 mm
    peers = {}
    if torch := optional("torch"):
        tensor = torch.from_numpy(logits)[None]
        peers["torch"] = lambda: torch.nn.functional.interpolate(
            tensor, size=size, mode="trilinear"
        )[0].numpy()
    if ndimage := optional("scipy.ndimage"):
        peers["scipy"] = lambda: ndimage.zoom(
            logits, (1, 2, 1, 1), order=1, grid_mode=True, mode="nearest"
        )
    out = ops.resample(logits, size, n_threads)
    for peer in peers.values():
        np.testing.assert_allclose(out, peer(), atol=1e-4)
    measure(lambda: ops.resample(logits, size, n_threads), peers, logits.nbytes + out.nbytes)


def test_resample_affine(measure: Measure, n_threads: int) -> None:
    """Images of thick, turned slices onto a grid of 1 mm."""
    c, s = np.cos(0.2), np.sin(0.2)
    matrix = np.array([[0.5 * c, 0, -0.5 * s, 12], [0, 1, 0, 0.3], [s, 0, c, -18]])
    small, size = random(2, 5, 6, 7), (9, 6, 8)
    exact = reference.resample_affine(small, matrix, size)
    np.testing.assert_allclose(
        ops.resample_affine(small, matrix, size, n_threads), exact, atol=1e-5
    )
    images, peers = random(2, 78, 240, 240), {}
    out = ops.resample_affine(images, matrix, VOLUME, n_threads)
    if ndimage := optional("scipy.ndimage"):
        turn, shift = matrix[:, :3], matrix[:, 3]
        peers["scipy"] = lambda: [
            ndimage.affine_transform(x, turn, shift, VOLUME, order=1, mode="nearest")
            for x in images
        ]
        inside = ops.resample_affine(np.ones_like(images), matrix, VOLUME) != 0
        np.testing.assert_allclose(out[inside], np.stack(peers["scipy"]())[inside], atol=1e-3)
    n_bytes = images.nbytes + out.nbytes
    measure(lambda: ops.resample_affine(images, matrix, VOLUME, n_threads), peers, n_bytes)


def speckled(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A large part in the middle, and about one lone voxel in a thousand."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    tumour = sum(axis**2 for axis in axes) < 0.1
    return (tumour | (np.random.default_rng(0).random(shape) < 1e-3)).astype(np.uint8)


def test_components(measure: Measure, n_threads: int) -> None:
    small = speckled((9, 20, 21))
    expected, *counts = reference.components(small, ((0, 9), (0, 20), (0, 21)), 2)
    assert [*ops.components(small, ((0, 9), (0, 20), (0, 21)), 2, n_threads)[:2]] == counts
    np.testing.assert_array_equal(small, expected)

    labels, box = speckled(TENSOR), ((0, TENSOR[0]), (0, TENSOR[1]), (0, TENSOR[2]))
    peers = {}
    if ndimage := optional("scipy.ndimage"):
        peers["scipy"] = lambda: np.bincount(ndimage.label(labels, np.ones((3, 3, 3)))[0].ravel())
        assert ops.components(labels, box, 0).n_before == len(peers["scipy"]()) - 1
    # 0 removes nothing, so that every round does the same.
    measure(lambda: ops.components(labels, box, 0, n_threads), peers, labels.nbytes)


def test_semantic_project(measure: Measure, n_threads: int) -> None:
    small = random(2, 3, 5, 6, 9)
    for got, exact in zip(
        ops.semantic_project(small, n_threads), reference.semantic_project(small), strict=True
    ):
        np.testing.assert_allclose(got, exact, atol=1e-5)
    tensor = random(1, 32, *(n // 8 for n in TENSOR))
    planes, peers = ops.semantic_project(tensor, n_threads), {}
    if torch := optional("torch"):
        peers["torch"] = torch.inference_mode()(
            lambda: project_with_torch(torch, torch.from_numpy(tensor))
        )
        for got, peer in zip(planes, peers["torch"](), strict=True):
            np.testing.assert_allclose(got, peer.numpy(), atol=1e-5)
    measure(
        lambda: ops.semantic_project(tensor, n_threads),
        peers,
        tensor.nbytes + sum(plane.nbytes for plane in planes),
    )


def test_semantic_plane(measure: Measure, n_threads: int) -> None:
    def example(n_r: int, n_c: int, d: int, h: int, w: int) -> tuple[Planes, PlaneWeights]:
        planes = Planes(*(random(1, 2 * n_r, *size) for size in ((h, w), (d, w), (d, h))))
        return planes, PlaneWeights(
            random(n_r, 2 * n_r, 3, 3) / 24, random(n_r), random(3, n_r), random(n_c, n_r) / 6
        )

    small = example(3, 5, 4, 6, 7)
    for got, exact in zip(
        ops.semantic_plane(*small, n_threads), reference.semantic_plane(*small), strict=True
    ):  # type: ignore[arg-type]
        np.testing.assert_allclose(got, exact, atol=1e-5)
    planes, weights = example(32, 128, *(n // 8 for n in TENSOR))
    seen, peers = ops.semantic_plane(planes, weights, n_threads), {}
    if torch := optional("torch"):
        inputs, tensors = (
            [torch.from_numpy(x) for x in planes],
            bridge_tensors([torch.from_numpy(w) for w in weights]),
        )
        peers["torch"] = torch.inference_mode()(lambda: see_with_torch(torch, inputs, tensors))
        for got, peer in zip(seen, peers["torch"](), strict=True):
            np.testing.assert_allclose(got, peer.numpy(), atol=1e-4)
    n_bytes = sum(plane.nbytes for plane in (*planes, *seen))
    measure(lambda: ops.semantic_plane(planes, weights, n_threads, out=seen), peers, n_bytes)


def test_semantic_lift(measure: Measure, n_threads: int) -> None:
    def example(n_c: int, d: int, h: int, w: int) -> Planes:
        return Planes(random(1, n_c, h, w), random(1, n_c, d, w), random(1, n_c, d, h))

    small = example(3, 5, 6, 7)
    np.testing.assert_allclose(
        ops.semantic_lift(small, n_threads=n_threads), reference.semantic_lift(small), atol=1e-5
    )
    planes = example(128, *(n // 8 for n in TENSOR))
    out, peers = ops.semantic_lift(planes, n_threads=n_threads), {}
    if torch := optional("torch"):
        z, y, x = (torch.from_numpy(plane) for plane in planes)
        peers["torch"] = torch.inference_mode()(
            lambda: (z[:, :, None] + y[:, :, :, None] + x[..., None]) / 3
        )
        np.testing.assert_allclose(out, peers["torch"]().numpy(), atol=1e-5)
    n_bytes = out.nbytes + sum(plane.nbytes for plane in planes)
    measure(lambda: ops.semantic_lift(planes, n_threads=n_threads), peers, n_bytes)


def test_semantic_bridge(measure: Measure, n_threads: int) -> None:
    """With the light network's channels at stride 8."""
    shape = tuple(n // 8 for n in TENSOR)
    reduced, x = random(1, 32, *shape), random(1, 128, *shape)
    weights = PlaneWeights(
        random(32, 64, 3, 3) / 24, random(32), random(3, 32), random(128, 32) / 6
    )

    planes = ops.semantic_project(reduced)
    seen = ops.semantic_plane(planes, weights)

    def bridge(target: NDArray[np.float32]) -> NDArray[np.float32]:
        """Through planes that stay from call to call; eager torch allocates its own."""
        ops.semantic_bridge(reduced, weights, target, n_threads, planes=planes, seen=seen)
        return target

    exact = reference.semantic_plane(reference.semantic_project(reduced), weights)  # type: ignore[arg-type]
    np.testing.assert_allclose(bridge(x.copy()), reference.semantic_lift(exact, x), atol=1e-4)  # type: ignore[arg-type]
    target, peers = x.copy(), {}
    if torch := optional("torch"):
        tensors = bridge_tensors([torch.from_numpy(w) for w in weights])
        inputs = torch.from_numpy(reduced), torch.from_numpy(x)
        peers["torch"] = torch.inference_mode()(lambda: bridge_with_torch(torch, *inputs, tensors))
        np.testing.assert_allclose(bridge(x.copy()), peers["torch"]().numpy(), atol=1e-4)
    measure(lambda: bridge(target), peers, reduced.nbytes + 2 * x.nbytes)


def test_semantic_attention(measure: Measure, n_threads: int) -> None:
    def example(n_c: int, shape: tuple[int, int, int]) -> tuple[Any, ...]:
        w_x, bias, w_g = random(16, 2 * n_c) / 8, random(16), random(16, 2 * n_c) / 8
        weights = AttentionWeights(w_x, bias, w_g, random(16, 3), random(16, 2, 2, 2), strength=0.5)
        below, coarse = (tuple(n // k for n in shape) for k in (2, 4))
        features = (
            random(1, n_c, *shape),
            random(1, 2 * n_c, *below),
            random(1, 2 * n_c, *below),
            random(1, 3, *coarse),
        )
        return features, weights

    features, weights = example(5, (8, 8, 12))
    out = np.empty_like(features[0])
    ops.semantic_attention(*features, weights, out, n_threads)
    np.testing.assert_allclose(out, reference.semantic_attention(*features, weights), atol=1e-5)

    d, h, w = (n // 2 for n in TENSOR)  # the finer of the two levels that have it
    features, weights = example(32, (d, h, w))
    buffer, peers = (
        np.zeros((2, 1, 64, d, h, w), np.float32),
        {},
    )  # ours and the peer's concatenation
    ops.semantic_attention(*features, weights, buffer[0, :, :32], n_threads)
    if torch := optional("torch"):
        inputs, tensors = (
            [torch.from_numpy(x) for x in arrays] for arrays in (features, weights[:5])
        )
        matrices = attention_tensors(tensors)
        target = torch.from_numpy(buffer[1, :, :32])
        peers["torch"] = torch.inference_mode()(
            lambda: attend_with_torch(torch, inputs, matrices, 0.5, target)
        )
        peers["torch"]()
        np.testing.assert_allclose(buffer[0], buffer[1], atol=1e-4)
    n_bytes = sum(x.nbytes for x in features) + features[0].nbytes
    measure(
        lambda: ops.semantic_attention(*features, weights, buffer[0, :, :32], n_threads),
        peers,
        n_bytes,
    )
