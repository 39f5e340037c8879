"""CUDA ops at BraTS size: each compared with the CPU op, then timed. Needs a CUDA device, CuPy, and torch with Triton.

    python -m benchmarks.cuda_ops OUT.json

The L2 cache is overwritten before each run; times are those of CUDA events around the op. The host runs ahead meanwhile, which
hides most of what Python costs a short op, ours or a peer's. Bandwidth counts inputs once and outputs once; `share_of_copy` is
its share of that of a device copy measured in the same process. Bridge and attention take turns with the same maths in torch,
eager and compiled, once all agree; `times_faster` is a peer's median over ours.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cupy
import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

import fastbts
from benchmarks.op_peers import (
    attend_with_torch,
    attention_tensors,
    bridge_tensors,
    bridge_with_torch,
)
from fastbts import ops
from fastbts.phantom import make_case

ROUNDS, WARM_UP = 50, 5
WINDOW = (128, 128, 128)
HALF = (0.5, 0.5, 0.5)

Run = Callable[[], Any]


class Peer(NamedTuple):
    """Another way to the same result: what to time, and whether it gives what ours gives."""

    run: Run
    is_right: Callable[[], bool]


class Case(NamedTuple):
    """What to time, a check of what it wrote, the bytes it must move, and peers that take turns with it."""

    run: Run
    is_right: Callable[[], bool]
    n_bytes: int
    peers: Mapping[str, Peer] = {}


def times_ms(runs: Sequence[Run]) -> list[list[float]]:
    """Times of each; they take turns, so that what the machine does meanwhile meets all of them."""
    cache = cupy.zeros(2**28, np.uint8)
    times: list[list[float]] = [[] for _ in runs]
    for i in range(WARM_UP + ROUNDS):
        for run, own in zip(runs, times, strict=True):
            cache += 1
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            run()
            end.record()
            end.synchronize()
            if i >= WARM_UP:
                own.append(cupy.cuda.get_elapsed_time(begin, end))
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    ordered, quarter = sorted(times), len(times) // 4
    return {
        "median_ms": statistics.median(ordered),
        "quartiles_distance_ms": ordered[-quarter - 1] - ordered[quarter],
        "n_rounds": len(ordered),
    }


def measured(case: Case) -> dict[str, Any]:
    own, *others = map(summary, times_ms([case.run, *(peer.run for peer in case.peers.values())]))
    result: dict[str, Any] = {
        **own,
        "n_bytes": case.n_bytes,
        "gb_per_s": case.n_bytes / own["median_ms"] / 1e6,
    }
    if peers := dict(zip(case.peers, others, strict=True)):
        result["peers"] = peers
        result["times_faster"] = {
            name: peer["median_ms"] / own["median_ms"] for name, peer in peers.items()
        }
    return result


def verify(name: str, case: Case) -> None:
    """Ends the program where an op, or a peer of it, computes something else."""
    case.run()
    if not case.is_right():
        sys.exit(f"{name}: differs from the op on the CPU; nothing was timed")
    for peer_name, peer in case.peers.items():
        if not peer.is_right():
            sys.exit(f"{name}: {peer_name} differs from the op; nothing was timed")


def as_tensors(arrays: Iterable[Any]) -> list[Any]:
    """The same memory as torch sees it; torch and CuPy both queue on the default stream, where the events are."""
    return [from_dlpack(array) for array in arrays]


def torch_peers(maths: Run, ours: Callable[[], np.ndarray[Any, Any]]) -> dict[str, Peer]:
    """Eager and compiled torch, each to be compared with what ours gives."""

    def is_right(run: Run) -> bool:
        return np.allclose(run().cpu().numpy(), ours(), atol=1e-4)

    forms = {"torch": maths, "torch.compile": torch.compile(maths, fullgraph=True, dynamic=False)}
    runs = {name: torch.inference_mode()(form) for name, form in forms.items()}
    return {name: Peer(run, partial(is_right, run)) for name, run in runs.items()}


def hold_torch_to_float32() -> None:
    """Equal precision: by default cuDNN rounds the inputs of float32 convolutions to TF32. And its fastest algorithms."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def copy_case() -> Case:
    source, target = cupy.ones(2**28, np.uint8), cupy.zeros(2**28, np.uint8)
    return Case(
        lambda: cupy.copyto(target, source),
        lambda: bool((target == source).all()),
        2 * source.nbytes,
    )


def normalize_case(volume: np.ndarray[Any, Any]) -> Case:
    found = ops.brain_box(volume)
    image = cupy.asarray(volume)
    out, stats = cupy.empty((len(volume), *found.size), np.float32), cupy.empty((len(volume), 4))
    scratch = cupy.empty(ops.normalize_scratch(len(volume), found.bounds), np.uint8)
    expected, _ = ops.normalize(volume, found.bounds, found.size)
    return Case(
        lambda: ops.normalize(
            image, found.bounds, found.size, out=out, stats=stats, scratch=scratch
        ),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        int(np.prod(found.size)) * len(volume) * volume.itemsize + out.nbytes,
    )


def brain_box_case(volume: np.ndarray[Any, Any]) -> Case:
    image, found = cupy.asarray(volume), cupy.empty(7 + 2 * len(volume), np.int64)
    expected = ops.brain_box(volume)
    return Case(
        lambda: ops.brain_box(image, found=found),
        lambda: ops.brain_box(image, found=found) == expected,
        volume.nbytes,
    )


def window_case(tensor: np.ndarray[Any, Any], origins: np.ndarray[Any, Any]) -> Case:
    out = cupy.empty((len(origins), len(tensor), *WINDOW), np.float32)
    source, corners = cupy.asarray(tensor), cupy.asarray(origins)
    expected = ops.window(tensor, origins, WINDOW)
    return Case(
        lambda: ops.window(source, corners, WINDOW, out),
        lambda: np.array_equal(out.get(), expected),
        source.nbytes + out.nbytes,
    )


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

    return Case(
        lambda: ops.blend(windows, corners, (d, h, w), total),
        check,
        windows.nbytes + 2 * total.nbytes,
    )


def label_case(logits: np.ndarray[Any, Any]) -> Case:
    size = logits.shape[1:]
    box = ((0, size[0]), (0, size[1]), (0, size[2]))
    source, labels, counts = (
        cupy.asarray(logits),
        cupy.zeros(size, np.uint8),
        cupy.empty(3, np.int64),
    )
    expected = np.zeros(size, np.uint8)
    ops.label(logits, (0, 0, 0), box, HALF, (2, 1, 4), expected)
    return Case(
        lambda: ops.label(source, (0, 0, 0), box, HALF, (2, 1, 4), labels, counts=counts),
        lambda: np.array_equal(labels.get(), expected),
        logits.nbytes + labels.nbytes,
    )


def resample_case(logits: np.ndarray[Any, Any], size: ops.Size) -> Case:
    source, out, expected = (
        cupy.asarray(logits),
        cupy.empty((3, *size), np.float32),
        ops.resample(logits, size),
    )
    return Case(
        lambda: ops.resample(source, size, out=out),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        logits.nbytes + out.nbytes,
    )


def resample_affine_case(images: np.ndarray[Any, Any], size: ops.Size) -> Case:
    """Onto voxels of 1 mm, from slices of 2 mm that are turned by 11 degrees."""
    c, s = np.cos(0.2), np.sin(0.2)
    matrix = np.array([[0.5 * c, 0, -0.5 * s, 12], [0, 1, 0, 0.3], [s, 0, c, -18]])
    source, out = cupy.asarray(images), cupy.empty((len(images), *size), np.float32)
    expected = ops.resample_affine(images, matrix, size)
    return Case(
        lambda: ops.resample_affine(source, matrix, size, out=out),
        lambda: np.array_equal(out.get(), expected),
        images.nbytes + out.nbytes,
    )


def components_case(size: ops.Size) -> Case:
    """Balls of 1 to 9 voxels' radius; nothing is removed, so that every run is the same."""
    d, h, w = np.ogrid[: size[0], : size[1], : size[2]]
    labels = np.zeros(size, np.uint8)
    for i, (z, y, x) in enumerate(np.random.default_rng(0).integers(10, 120, (40, 3))):
        labels[(d - z) ** 2 + (h - y) ** 2 + (w - x) ** 2 < (1 + i % 9) ** 2] = 1 + i % 3
    box = ((0, size[0]), (0, size[1]), (0, size[2]))
    source, counts = cupy.asarray(labels), cupy.empty(258, np.int64)
    scratch, expected = (
        cupy.empty((2, labels.size), np.int32),
        ops.components(labels.copy(), box, 0),
    )
    return Case(
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
    return Case(
        lambda: ops.semantic_project(source, out=out),
        lambda: is_near(out, expected),
        tensor.nbytes + n_bytes_of(out),
    )


def plane_weights() -> ops.PlaneWeights:
    """Those of the light network's bridge, which has 128 channels and planes of 64; scaled so that sums stay near 1."""
    return ops.PlaneWeights(
        random(32, 64, 3, 3) / 24, random(32), random(3, 32), random(128, 32) / 6
    )


def plane_case(size: ops.Size) -> Case:
    given, weights, out = planes(64, size), plane_weights(), there(planes(128, size))
    source, expected = there(given), ops.semantic_plane(given, weights)
    on_device = ops.PlaneWeights(*map(cupy.asarray, weights))
    return Case(
        lambda: ops.semantic_plane(source, on_device, out=out),
        lambda: is_near(out, expected),
        n_bytes_of(given) + n_bytes_of(out),
    )


def lift_case(size: ops.Size) -> Case:
    given, out = planes(128, size), cupy.empty((1, 128, *size), np.float32)
    source, expected = there(given), ops.semantic_lift(given)
    return Case(
        lambda: ops.semantic_lift(source, out=out),
        lambda: np.allclose(out.get(), expected, atol=1e-5),
        n_bytes_of(given) + out.nbytes,
    )


def bridge_case(size: ops.Size) -> Case:
    """The three steps above in one call, added to its target in place; torch makes its planes and its result anew."""
    reduced, x, weights = random(1, 32, *size), random(1, 128, *size), plane_weights()
    expected = x.copy()
    ops.semantic_bridge(reduced, weights, expected)
    source, target, on_device = (
        cupy.asarray(reduced),
        cupy.asarray(x),
        ops.PlaneWeights(*map(cupy.asarray, weights)),
    )
    projected, seen = there(planes(64, size)), there(planes(128, size))

    def run() -> None:
        ops.semantic_bridge(source, on_device, target, planes=projected, seen=seen)

    def ours() -> np.ndarray[Any, Any]:
        """Of one run, whatever runs before have added."""
        target[...] = cupy.asarray(x)
        run()
        return target.get()

    inputs, tensors = as_tensors([source, cupy.asarray(x)]), bridge_tensors(as_tensors(on_device))
    peers = torch_peers(lambda: bridge_with_torch(torch, inputs[0], inputs[1], tensors), ours)
    return Case(
        run, lambda: np.allclose(ours(), expected, atol=1e-4), reduced.nbytes + 2 * x.nbytes, peers
    )


def attention_case(below: ops.Size) -> Case:
    skip, maps = random(1, 32, *(2 * n for n in below)), random(1, 3, *(n // 2 for n in below))
    (encoded, decoded), (w_x, w_g) = random(2, 1, 64, *below), random(2, 16, 64) / 8
    features, mix = (
        (skip, encoded, decoded, maps),
        (w_x, random(16), w_g, random(16, 3), random(16, 2, 2, 2) / 4),
    )
    expected, out = np.empty_like(skip), cupy.empty(skip.shape, np.float32)
    ops.semantic_attention(
        skip, encoded, decoded, maps, ops.AttentionWeights(*mix, strength=0.5), expected
    )
    source, on_device = [cupy.asarray(x) for x in features], [cupy.asarray(x) for x in mix]
    weights = ops.AttentionWeights._make([*on_device, 0.5])
    inputs, tensors = as_tensors(source), attention_tensors(as_tensors(on_device))
    target = torch.empty_like(inputs[0])
    return Case(
        lambda: ops.semantic_attention(source[0], source[1], source[2], source[3], weights, out),
        lambda: np.allclose(out.get(), expected, atol=1e-4),
        sum(x.nbytes for x in features) + out.nbytes,
        torch_peers(lambda: attend_with_torch(torch, inputs, tensors, 0.5, target), out.get),
    )


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    volume = np.asarray(make_case(0).volume.data).astype(np.int16)
    size = (144, 176, 144)
    origins = np.array([(d, h, w) for d in (0, 16) for h in (0, 48) for w in (0, 16)], np.int32)
    return {
        "copy": copy_case(),
        "brain_box": brain_box_case(volume),
        "normalize": normalize_case(volume),
        "window": window_case(rng.standard_normal((4, *size), np.float32), origins),
        "blend": blend_case(rng.standard_normal((8, 3, *WINDOW), np.float32), origins, size),
        "label": label_case(rng.standard_normal((3, *size), np.float32)),
        "resample": resample_case(rng.standard_normal((3, 72, 88, 72), np.float32), size),
        "resample_affine": resample_affine_case(
            rng.standard_normal((4, 78, 240, 240), np.float32), (155, 240, 240)
        ),
        "components": components_case(size),
        "semantic_project": project_case((18, 22, 18)),
        "semantic_plane": plane_case((18, 22, 18)),
        "semantic_lift": lift_case((18, 22, 18)),
        "semantic_bridge": bridge_case((18, 22, 18)),
        "semantic_attention": attention_case((36, 44, 36)),
    }


def main(path: Path) -> None:
    """Writes the results; fails where an op does not agree with the CPU's, or a peer with the op."""
    hold_torch_to_float32()
    found = cases()
    for name, case in found.items():
        verify(name, case)
    results = {name: measured(case) for name, case in found.items()}
    for result in results.values():
        result["share_of_copy"] = result["gb_per_s"] / results["copy"]["gb_per_s"]
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    machine = {
        "fastbts": fastbts.__version__,
        "torch": torch.__version__,
        "device": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }
    path.write_text(json.dumps({"machine": machine, "ops": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
