"""The network over a tensor: in one pass, or in sliding windows that are blended; once or twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.huge_pages import huge_pages
from fastbts.device.interface import Array, Workspace
from fastbts.device.lend import Workspaces
from fastbts.engine.interface import DeviceEngine, Engine, PackedEngine, batch_of, packing_of
from fastbts.ops import PackedLogits, Packing, Size
from fastbts.options import SegmenterOptions
from fastbts.pipeline.memory import choose_mode, memory_explained
from fastbts.pipeline.window import WindowPlan, fitted_size
from fastbts.progress import Clock
from fastbts.spec import EngineSpec

BEGIN, END = 0.15, 0.95  # share of a case's total work, for the progress

Done = Callable[[float], float]
"""Share of a pass that is done -> share of the case."""
Pass = Callable[[Array, Done, str], tuple[Array, dict[str, Any]]]
"""Tensor, progress and name of the logits -> logits and what the report says."""


class Plan(NamedTuple):
    """How the network runs over a tensor.

    Attributes:
        mode: "one-pass" or "sliding".
        reason: Why.
        packing: How its tensor must be packed; None for voxels.
    """

    mode: str
    reason: str
    packing: Packing | None = None


@dataclass(frozen=True, eq=False)
class Inferred:
    """The network's output for a tensor.

    Attributes:
        logits: (K, D, H, W) float32, or packed; in memory that the workspace may keep.
        windows: Mode, why it was chosen, number of passes and of windows in each; for sliding ones
            also size and overlap. For the report.
    """

    logits: Array | PackedLogits
    windows: dict[str, Any]


def planned(
    engine: Engine,
    size: Size,
    spec: EngineSpec,
    options: SegmenterOptions,
    workspace: Workspace = HOST,
    *,
    tensor_bytes: int = 0,
) -> Plan:
    """Chooses the mode for a tensor of this size, unless the options do.

    A single pass over a case in host memory takes the tensor packed, if the engine does.
    `tensor_bytes` are what a tensor will take that is not made yet.
    """
    mode, reason = options.mode, "the mode was given"
    if mode == "auto":
        n_voxels, n_window = math.prod(size), math.prod(spec.window)
        free = workspace.free_bytes()
        free = None if free is None else max(0, free - tensor_bytes)
        mode, reason = choose_mode(engine, n_voxels, n_window, workspace.device, free)
    packs = mode == "one-pass" and options.passes == 1 and workspace.stream is None
    return Plan(mode, reason, packing_of(engine) if packs else None)


def infer(
    engine: Engine,
    tensor: Array,
    spec: EngineSpec,
    options: SegmenterOptions,
    clock: Clock,
    workspace: Workspace = HOST,
    plan: Plan | None = None,
) -> Inferred:
    """Runs the network over a tensor (M, D, H, W), in the mode that the options ask for.

    Args:
        engine: The network, on the device of the workspace.
        tensor: In the workspace; packed if the plan says so.
        spec: Has regions and window.
        options: Mode, overlap and passes.
        clock: Gets the times and the progress.
        workspace: Where it runs; on a device all is queued there, and nothing waits.
        plan: What `planned` returned; None for a tensor of voxels.
    Raises:
        DeviceError: See `Engine.infer`.
    """
    if plan is None:
        plan = planned(engine, tensor.shape[1:], spec, options, workspace)._replace(packing=None)
    d, h, w = tensor.shape[1:] if plan.packing is None else plan.packing.size(tensor.shape)
    run = _Run(engine, spec, options, clock, workspace)
    free, largest, way_out = workspace.free_bytes(), d * h * w, ""
    if plan.mode == "sliding":
        largest = math.prod(run.window_size((d, h, w)))
    elif largest > math.prod(spec.window):
        way_out = ", or use mode='sliding' (--mode sliding)"
    with memory_explained(engine, largest, free, way_out):
        if plan.packing is not None:
            logits, about = run.packed_pass(tensor)
        else:
            way = run.sliding if plan.mode == "sliding" else run.one_pass
            logits, about = run.passes(tensor, way)
    how = {"mode": plan.mode, "reason": plan.reason, "passes": options.passes}
    return Inferred(logits, {**how, **about})


def warm_up(engine: Engine, lender: Workspaces) -> None:
    """Runs the network on zeros of a window's size: memory and kernels are prepared for it."""
    if lender.device != "cpu":
        with lender.lend() as workspace:
            warm_up_on_device(cast(DeviceEngine, engine), workspace)
        return
    spec = engine.spec
    n_voxels = math.prod(spec.window)
    with huge_pages(), memory_explained(engine, n_voxels, HOST.free_bytes(), ""):
        engine.infer(np.zeros((1, len(spec.modalities), *spec.window), np.float32))


def warm_up_on_device(engine: DeviceEngine, workspace: Workspace) -> None:
    """Runs the network on zeros in the memory that a prediction uses.

    Twice, as a runtime may record the second run of a shape as a CUDA graph.
    """
    spec = engine.spec
    tensor = workspace.kept("tensor", (len(spec.modalities), *spec.window), np.float32)
    logits = workspace.kept("logits", (len(spec.regions), *spec.window), np.float32)
    workspace.clear(tensor)
    for _ in range(2):
        engine.infer(tensor[None], out=logits[None], stream=workspace.stream)
    workspace.wait()


@dataclass(frozen=True, eq=False)
class _Run:
    """The network over one tensor."""

    engine: Engine
    spec: EngineSpec
    options: SegmenterOptions
    clock: Clock
    workspace: Workspace

    def passes(self, tensor: Array, run: Pass) -> tuple[Array, dict[str, Any]]:
        """One pass, or the average of two."""
        n_passes = self.options.passes
        logits, about = run(tensor, _done(0, n_passes), "logits")
        if n_passes == 2:
            again, _ = run(self._shifted(tensor), _done(1, n_passes), "logits of the moved tensor")
            self._average(logits, again)
        return logits, about

    def packed_pass(self, tensor: NDArray[Any]) -> tuple[PackedLogits, dict[str, Any]]:
        """The whole tensor at once, both ends packed."""
        with self.clock("infer", BEGIN):
            return cast(PackedEngine, self.engine).infer_packed(tensor), {"count": 1}

    def one_pass(self, tensor: Array, done: Done, name: str) -> tuple[Array, dict[str, Any]]:
        """The whole tensor at once; the logits are in memory of that name on a device."""
        with self.clock("infer", done(0)):
            if self.workspace.stream is None:
                return self.engine.infer(tensor[None])[0], {"count": 1}
            logits = self.workspace.kept(name, self._shape(tensor), np.float32)
            self._infer(tensor[None], logits[None])
            return logits, {"count": 1}

    def sliding(self, tensor: Array, done: Done, name: str) -> tuple[Array, dict[str, Any]]:
        """Window by window, or some at a time where the engine takes more."""
        space, shape = self.workspace, self._shape(tensor)
        plan = WindowPlan.cover(shape[1:], self.window_size(shape[1:]), self.options.overlap)
        logits, n_batch = space.zeros(shape, np.float32), min(batch_of(self.engine), len(plan))
        inputs = space.kept("windows", (n_batch, len(tensor), *plan.size), np.float32)
        outputs = space.kept("window logits", (n_batch, len(logits), *plan.size), np.float32)
        origins = space.put(plan.origins, "origins")
        weights = [space.put(w, f"weights {i}") for i, w in enumerate(plan.weights)]
        for begin in range(0, len(plan), n_batch):
            share, some = done(begin / len(plan)), slice(begin, begin + n_batch)
            here = origins[some]
            windows, part = inputs[: len(here)], outputs[: len(here)]
            with self.clock("window", share):
                self._window(tensor, here, windows)
            with self.clock("infer", share):
                self._infer(windows, part)
            with self.clock("blend", share):
                d, h, w = (axis[some] for axis in weights)
                self._blend(part, here, (d, h, w), logits)
        size = {"size_zyx": list(plan.size), "overlap": self.options.overlap}
        return logits, {"count": len(plan), **size}

    def window_size(self, size: Size) -> Size:
        """Of the windows over a tensor: the one that computes the fewest voxels.

        For a network on a device it is the engine's: runtimes there have prepared kernels and
        graphs for it, and take no side that is much longer.
        """
        if self.engine.description["device"] != "cpu":
            return self.spec.window
        return fitted_size(size, self.spec.window, self.options.overlap, self.spec.stride)

    def _shape(self, tensor: Array) -> tuple[int, int, int, int]:
        """Of the logits, (K, D, H, W)."""
        _, d, h, w = tensor.shape
        return len(self.spec.regions), d, h, w

    def _shifted(self, tensor: Array) -> Array:
        """Moved by one voxel along each axis; the last voxels fall off.

        The network begins with blocks of 2 x 2 x 2 voxels, which then hold other voxels.
        """
        moved = self.workspace.kept("moved tensor", tensor.shape, np.float32)
        origin = self.workspace.put(np.full((1, 3), -1, np.int32), "moved origin")
        self._window(tensor, origin, moved[None])
        return moved

    def _average(self, logits: Array, shifted: Array) -> None:
        """Averages logits with those of the shifted tensor, in place, where both are known.

        All but the last voxels along each axis are: there half of the logits is taken off, and
        half of the shifted ones added, which rounds as (a + b) / 2 does.
        """
        known = [np.ones((1, n), np.float32) for n in logits.shape[1:]]
        for axis in known:
            axis[:, -1] = 0
        known[0] *= -0.5
        less = [self.workspace.put(w, f"known {i}") for i, w in enumerate(known)]
        half = [
            np.full((1, n), c, np.float32)
            for n, c in zip(logits.shape[1:], (0.5, 1, 1), strict=True)
        ]
        more = [self.workspace.put(w, f"half {i}") for i, w in enumerate(half)]
        origins = np.array([[0, 0, 0], [-1, -1, -1]], np.int32)
        here, moved = (self.workspace.put(o[None], f"average {i}") for i, o in enumerate(origins))
        self._blend(logits[None], here, (less[0], less[1], less[2]), logits)
        self._blend(shifted[None], moved, (more[0], more[1], more[2]), logits)

    def _infer(self, tensor: Array, out: Array) -> None:
        if self.workspace.stream is None:
            self.engine.infer(tensor, out=out)
        else:
            engine = cast(DeviceEngine, self.engine)
            engine.infer(tensor, out=out, stream=self.workspace.stream)

    def _window(self, tensor: Array, origins: Array, out: Array) -> None:
        size, n_threads = out.shape[2:], self.options.n_threads
        ops.window(tensor, origins, size, n_threads, out=out, stream=self.workspace.stream)

    def _blend(
        self, part: Array, origins: Array, weights: tuple[Array, Array, Array], total: Array
    ) -> None:
        n_threads, stream = self.options.n_threads, self.workspace.stream
        ops.blend(part, origins, weights, total, n_threads, stream=stream)


def _done(n: int, n_passes: int) -> Done:
    return lambda share: BEGIN + (END - BEGIN) * (n + share) / n_passes
