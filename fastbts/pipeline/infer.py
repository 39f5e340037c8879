"""The network over a tensor: in one pass, or in sliding windows that are blended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.engine.interface import Engine
from fastbts.options import SegmenterOptions
from fastbts.pipeline.memory import choose_mode, free_bytes, memory_explained
from fastbts.pipeline.window import WindowPlan
from fastbts.progress import Clock
from fastbts.spec import EngineSpec

BEGIN, END = 0.15, 0.95  # share of a case's total work, for the progress


@dataclass(frozen=True, eq=False)
class Inferred:
    """The network's output for a tensor.

    Attributes:
        logits: (K, D, H, W) float32.
        windows: Mode, why it was chosen, and number of windows; for sliding ones also size and
            overlap. For the report.
    """

    logits: NDArray[np.float32]
    windows: dict[str, Any]


def infer(
    engine: Engine,
    tensor: NDArray[np.float32],
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
) -> Inferred:
    """Runs the network over a tensor (M, D, H, W), in the mode that the options ask for.

    Raises:
        DeviceError: See `Engine.infer`.
    """
    n_voxels, n_window, free = tensor[0].size, math.prod(spec.window), free_bytes()
    mode, reason = options.mode, "the mode was given"
    if mode == "auto":
        mode, reason = choose_mode(engine, n_voxels, n_window, free)
    run, largest, way_out = _one_pass, n_voxels, ""
    if mode == "sliding":
        run, largest = _sliding, n_window
    elif n_voxels > n_window:
        way_out = ", or use mode='sliding' (--mode sliding)"
    with memory_explained(engine, largest, free, way_out):
        logits, about = run(engine, tensor, spec, options, clock)
    return Inferred(logits, {"mode": mode, "reason": reason, **about})


def _one_pass(
    engine: Engine,
    tensor: NDArray[np.float32],
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    with clock("infer", BEGIN):
        return engine.infer(tensor[None])[0], {"count": 1}


def _sliding(
    engine: Engine,
    tensor: NDArray[np.float32],
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    n_d, n_h, n_w = tensor.shape[1:]
    plan = WindowPlan.cover((n_d, n_h, n_w), spec.window, options.overlap)
    logits = np.zeros((len(spec.regions), n_d, n_h, n_w), np.float32)
    part = np.empty((1, len(logits), *plan.size), np.float32)
    for b in range(len(plan)):
        done, origin = BEGIN + (END - BEGIN) * b / len(plan), plan.origins[b : b + 1]
        with clock("window", done):
            window = ops.window(tensor, origin, plan.size, n_threads=options.n_threads)
        with clock("infer", done):
            engine.infer(window, out=part)
        with clock("blend", done):
            d, h, w = (axis[b : b + 1] for axis in plan.weights)
            ops.blend(part, origin, (d, h, w), logits, n_threads=options.n_threads)
    about = {"count": len(plan), "size_zyx": list(plan.size), "overlap": options.overlap}
    return logits, about
