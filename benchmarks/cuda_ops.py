"""CUDA ops at BraTS size: each compared with the CPU op, then timed. Needs a CUDA device and CuPy.

    python -m benchmarks.cuda_ops OUT.json

The L2 cache is overwritten before each run; times are those of CUDA events around the op. Bandwidth counts inputs once and
outputs once, and stands beside that of a device copy measured in the same process.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy
import numpy as np

import fastbts
from fastbts import ops
from fastbts.phantom import make_case

ROUNDS, WARM_UP = 50, 5
WINDOW = (128, 128, 128)
HALF = (0.5, 0.5, 0.5)

Case = tuple[Callable[[], Any], Callable[[], bool], int]
"""What to time, a check of what it wrote, and the bytes it must move."""


def times_ms(run: Callable[[], Any]) -> list[float]:
    cache = cupy.zeros(2**28, np.uint8)
    times = []
    for i in range(WARM_UP + ROUNDS):
        cache += 1
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= WARM_UP:
            times.append(cupy.cuda.get_elapsed_time(begin, end))
    return times


def measured(run: Callable[[], Any], n_bytes: int) -> dict[str, float]:
    times = sorted(times_ms(run))
    median = statistics.median(times)
    quarter = len(times) // 4
    return {
        "median_ms": median,
        "quartiles_distance_ms": times[-quarter - 1] - times[quarter],
        "n_rounds": len(times),
        "n_bytes": n_bytes,
        "gb_per_s": n_bytes / median / 1e6,
    }


def normalize_case(volume: np.ndarray[Any, Any]) -> Case:
    found = ops.brain_box(volume)
    image = cupy.asarray(volume)
    out, stats = cupy.empty((len(volume), *found.size), np.float32), cupy.empty((len(volume), 4))
    scratch = cupy.empty(ops.normalize_scratch(len(volume), found.bounds), np.uint8)
    expected, _ = ops.normalize(volume, found.bounds, found.size)
    return (
        lambda: ops.normalize(image, found.bounds, found.size, out=out, stats=stats, scratch=scratch),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        int(np.prod(found.size)) * len(volume) * volume.itemsize + out.nbytes,
    )


def brain_box_case(volume: np.ndarray[Any, Any]) -> Case:
    image, found = cupy.asarray(volume), cupy.empty(7 + 2 * len(volume), np.int64)
    expected = ops.brain_box(volume)
    return lambda: ops.brain_box(image, found=found), lambda: ops.brain_box(image, found=found) == expected, volume.nbytes


def window_case(tensor: np.ndarray[Any, Any], origins: np.ndarray[Any, Any]) -> Case:
    out = cupy.empty((len(origins), len(tensor), *WINDOW), np.float32)
    source, corners = cupy.asarray(tensor), cupy.asarray(origins)
    expected = ops.window(tensor, origins, WINDOW)
    return lambda: ops.window(source, corners, WINDOW, out), lambda: np.array_equal(out.get(), expected), 2 * out.nbytes


def blend_case(logits: np.ndarray[Any, Any], origins: np.ndarray[Any, Any], size: ops.Size) -> Case:
    weights = tuple(np.full((len(origins), n), 0.5, np.float32) for n in WINDOW)
    d, h, w = (cupy.asarray(weight) for weight in weights)
    windows, corners = cupy.asarray(logits), cupy.asarray(origins)
    total, expected = cupy.zeros((3, *size), np.float32), np.zeros((3, *size), np.float32)
    ops.blend(logits, origins, (weights[0], weights[1], weights[2]), expected)

    def check() -> bool:
        total.fill(0)
        ops.blend(windows, corners, (d, h, w), total)
        return np.array_equal(total.get(), expected)

    return lambda: ops.blend(windows, corners, (d, h, w), total), check, windows.nbytes + 2 * total.nbytes


def label_case(logits: np.ndarray[Any, Any]) -> Case:
    size = logits.shape[1:]
    box = ((0, size[0]), (0, size[1]), (0, size[2]))
    source, labels, counts = cupy.asarray(logits), cupy.zeros(size, np.uint8), cupy.empty(3, np.int64)
    expected = np.zeros(size, np.uint8)
    ops.label(logits, (0, 0, 0), box, HALF, (2, 1, 4), expected)
    return (
        lambda: ops.label(source, (0, 0, 0), box, HALF, (2, 1, 4), labels, counts=counts),
        lambda: np.array_equal(labels.get(), expected),
        logits.nbytes + labels.nbytes,
    )


def resample_case(logits: np.ndarray[Any, Any], size: ops.Size) -> Case:
    source, out, expected = cupy.asarray(logits), cupy.empty((3, *size), np.float32), ops.resample(logits, size)
    return (
        lambda: ops.resample(source, size, out=out),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        logits.nbytes + out.nbytes,
    )


def components_case(size: ops.Size) -> Case:
    """Balls of 1 to 9 voxels' radius; nothing is removed, so that every run is the same."""
    d, h, w = np.ogrid[: size[0], : size[1], : size[2]]
    labels = np.zeros(size, np.uint8)
    for i, (z, y, x) in enumerate(np.random.default_rng(0).integers(10, 120, (40, 3))):
        labels[(d - z) ** 2 + (h - y) ** 2 + (w - x) ** 2 < (1 + i % 9) ** 2] = 1 + i % 3
    box = ((0, size[0]), (0, size[1]), (0, size[2]))
    source, counts = cupy.asarray(labels), cupy.empty(258, np.int64)
    scratch, expected = cupy.empty((2, labels.size), np.int32), ops.components(labels.copy(), box, 0)
    return (
        lambda: ops.components(source, box, 0, counts=counts, scratch=scratch),
        lambda: counts[:2].get().tolist() == [expected.n_before, expected.n_after],
        labels.nbytes,
    )


def random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def planes(n_channels: int, size: ops.Size) -> ops.Planes:
    d, h, w = size
    return ops.Planes(*(random(1, n_channels, *shape) for shape in ((h, w), (d, w), (d, h))))


def there(arrays: ops.Planes) -> ops.Planes:
    return ops.Planes(*map(cupy.asarray, arrays))


def is_near(out: ops.Planes, expected: ops.Planes) -> bool:
    return all(np.allclose(a.get(), b, atol=1e-4) for a, b in zip(out, expected, strict=True))


def n_bytes_of(arrays: ops.Planes) -> int:
    return sum(plane.nbytes for plane in arrays)


def project_case(size: ops.Size) -> Case:
    tensor, out = random(1, 32, *size), there(planes(64, size))
    source, expected = cupy.asarray(tensor), ops.semantic_project(tensor)
    return (
        lambda: ops.semantic_project(source, out=out),
        lambda: is_near(out, expected),
        tensor.nbytes + n_bytes_of(out),
    )


def plane_case(size: ops.Size) -> Case:
    given, out = planes(64, size), there(planes(128, size))
    weights = ops.PlaneWeights(random(32, 64, 3, 3) / 24, random(32), random(3, 32), random(128, 32) / 6)
    source, expected = there(given), ops.semantic_plane(given, weights)
    on_device = ops.PlaneWeights(*map(cupy.asarray, weights))
    return (
        lambda: ops.semantic_plane(source, on_device, out=out),
        lambda: is_near(out, expected),
        n_bytes_of(given) + n_bytes_of(out),
    )


def lift_case(size: ops.Size) -> Case:
    given, out = planes(128, size), cupy.empty((1, 128, *size), np.float32)
    source, expected = there(given), ops.semantic_lift(given)
    return (
        lambda: ops.semantic_lift(source, out=out),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        n_bytes_of(given) + out.nbytes,
    )


def attention_case(below: ops.Size) -> Case:
    skip, features, maps = random(1, 32, *(2 * n for n in below)), random(1, 64, *below), random(1, 3, *(n // 2 for n in below))
    mix = (random(16, 64) / 8, random(16), random(16, 64) / 8, random(16, 3), random(16, 2, 2, 2) / 4)
    arrays, expected = (skip, features, features, maps), np.empty_like(skip)
    ops.semantic_attention(skip, features, features, maps, ops.AttentionWeights(*mix, 0.5), expected)
    source, weights = [cupy.asarray(x) for x in arrays], ops.AttentionWeights(*map(cupy.asarray, mix), 0.5)
    out = cupy.empty(skip.shape, np.float32)
    return (
        lambda: ops.semantic_attention(source[0], source[1], source[2], source[3], weights, out),
        lambda: np.allclose(out.get(), expected, atol=1e-4),
        2 * skip.nbytes + 2 * features.nbytes + maps.nbytes,
    )


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    volume = np.asarray(make_case(0).volume.data).astype(np.int16)
    size = (144, 176, 144)
    origins = np.array([(d, h, w) for d in (0, 16) for h in (0, 48) for w in (0, 16)], np.int32)
    return {
        "brain_box": brain_box_case(volume),
        "normalize": normalize_case(volume),
        "window": window_case(rng.standard_normal((4, *size), np.float32), origins),
        "blend": blend_case(rng.standard_normal((8, 3, *WINDOW), np.float32), origins, size),
        "label": label_case(rng.standard_normal((3, *size), np.float32)),
        "resample": resample_case(rng.standard_normal((3, 72, 88, 72), np.float32), size),
        "components": components_case(size),
        "semantic_project": project_case((18, 22, 18)),
        "semantic_plane": plane_case((18, 22, 18)),
        "semantic_lift": lift_case((18, 22, 18)),
        "semantic_attention": attention_case((36, 44, 36)),
    }


def main(path: Path) -> None:
    """Writes the results; fails where an op does not agree with the CPU's."""
    source, target = cupy.zeros(2**28, np.uint8), cupy.empty(2**28, np.uint8)
    results: dict[str, Any] = {"copy": measured(lambda: cupy.copyto(target, source), 2 * source.nbytes)}
    for name, (run, is_right, n_bytes) in cases().items():
        run()
        if not is_right():
            sys.exit(f"{name}: differs from the op on the CPU; nothing was timed")
        results[name] = measured(run, n_bytes)
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    machine = {
        "fastbts": fastbts.__version__,
        "device": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }
    path.write_text(json.dumps({"machine": machine, "ops": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
