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
