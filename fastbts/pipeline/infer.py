"""The network over a tensor: in one pass, or in sliding windows that are blended; once or twice."""

from __future__ import annotations

import math
from collections.abc import Callable
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

Floats = NDArray[np.float32]
Done = Callable[[float], float]
"""Share of a pass that is done -> share of the case."""


@dataclass(frozen=True, eq=False)
class Inferred:
    """The network's output for a tensor.

    Attributes:
        logits: (K, D, H, W) float32.
        windows: Mode, why it was chosen, number of passes and of windows in each; for sliding ones
            also size and overlap. For the report.
    """

    logits: Floats
    windows: dict[str, Any]


def infer(
    engine: Engine,
    tensor: Floats,
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
        logits, about = run(engine, tensor, spec, options, clock, _done(0, options.passes))
        if options.passes == 2:
            done = _done(1, options.passes)
            again, _ = run(engine, _shifted(tensor), spec, options, clock, done)
            _average(logits, again)
    return Inferred(logits, {"mode": mode, "reason": reason, "passes": options.passes, **about})


def _done(n: int, n_passes: int) -> Done:
    return lambda share: BEGIN + (END - BEGIN) * (n + share) / n_passes


def _shifted(tensor: Floats) -> Floats:
    """Moved by one voxel along each axis; the last voxels fall off.

    The network begins with blocks of 2 x 2 x 2 voxels, which then hold other voxels.
    """
    moved = np.zeros_like(tensor)
    moved[:, 1:, 1:, 1:] = tensor[:, :-1, :-1, :-1]
    return moved


def _average(logits: Floats, shifted: Floats) -> None:
    """Averages logits with those of the shifted tensor, in place, where both are known."""
    known = logits[:, :-1, :-1, :-1]
    known += shifted[:, 1:, 1:, 1:]
    known *= 0.5


def _one_pass(
    engine: Engine,
    tensor: Floats,
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
    done: Done,
) -> tuple[Floats, dict[str, Any]]:
    with clock("infer", done(0)):
        return engine.infer(tensor[None])[0], {"count": 1}


def _sliding(
    engine: Engine,
    tensor: Floats,
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
    done: Done,
) -> tuple[Floats, dict[str, Any]]:
    n_d, n_h, n_w = tensor.shape[1:]
    plan = WindowPlan.cover((n_d, n_h, n_w), spec.window, options.overlap)
    logits = np.zeros((len(spec.regions), n_d, n_h, n_w), np.float32)
    part = np.empty((1, len(logits), *plan.size), np.float32)
    for b in range(len(plan)):
        share, origin = done(b / len(plan)), plan.origins[b : b + 1]
        with clock("window", share):
            window = ops.window(tensor, origin, plan.size, n_threads=options.n_threads)
        with clock("infer", share):
            engine.infer(window, out=part)
        with clock("blend", share):
            d, h, w = (axis[b : b + 1] for axis in plan.weights)
            ops.blend(part, origin, (d, h, w), logits, n_threads=options.n_threads)
    about = {"count": len(plan), "size_zyx": list(plan.size), "overlap": options.overlap}
    return logits, about
