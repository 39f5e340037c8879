"""One case on its way through the stages: normalize, find (with focus), infer, label, report."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastbts.device.interface import Array, Workspace
from fastbts.engine.interface import Engine
from fastbts.errors import FastBTSError
from fastbts.ops import PackedLogits, Size
from fastbts.options import SegmenterOptions
from fastbts.pipeline.brain import Brain, find_brain
from fastbts.pipeline.confidence import confidence, doubts, probability_sums
from fastbts.pipeline.focus import Focus, begun, found
from fastbts.pipeline.infer import Inferred, Plan, infer, planned
from fastbts.pipeline.label import Labelling, RegionLabelling, labelling_of
from fastbts.pipeline.normalize import Prepared, normalize, placed, statistics
from fastbts.pipeline.report import report
from fastbts.placement import Placement
from fastbts.progress import Clock
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

logger = logging.getLogger("fastbts")

Inspect = Callable[[Workspace], Callable[[], Volume]]
"""Queues what quality control needs; the function returned raises, or gives the volume with its
warnings, after a wait."""


class Predicted(NamedTuple):
    """The first attributes of a `Segmentation`."""

    labels: Array
    volumes_ml: dict[str, float]
    timings_ms: dict[str, float]
    report: dict[str, Any]
    volume: Volume
    output: Array | PackedLogits
    placement: Placement


@dataclass(frozen=True, eq=False)
class _Queued:
    """What the stages have queued for a case; on a device it may not be done."""

    engine: Engine
    prepared: Prepared
    inferred: Inferred
    labelling: Labelling | RegionLabelling
    sums: Array
    logits: Array | PackedLogits
    placement: Placement


@dataclass(frozen=True, eq=False)
class Prediction:
    """The stages for one case, in a workspace.

    Attributes:
        volume: The case.
        spec: The engine's inputs and outputs.
        options: How to run.
        clock: Gets times and progress.
        workspace: Where to run.
        engine: Gives the engine, on the device of the workspace; waits for it if need be.
        inspect: On a device, for a case without quality control yet.
        finder: With focus, gives the finder once the engine is loaded; None where it is not used.
    """

    volume: Volume
    spec: EngineSpec
    options: SegmenterOptions
    clock: Clock
    workspace: Workspace
    engine: Callable[[], Engine]
    inspect: Inspect | None = None
    finder: Callable[[], Engine | None] = lambda: None

    def run(self) -> Predicted:
        """Segments the case.

        Raises:
            FastBTSError: See `Segmenter.predict`.
        """
        if self.workspace.stream is None:
            return self._concluded(self._queued())
        inspected = self.inspect(self.workspace) if self.inspect else lambda: self.volume
        try:
            queued = self._queued()
        except FastBTSError:
            inspected()  # raises what the CPU finds first, if it is another error
            raise
        return self._checked(queued, inspected)

    def _queued(self, brain: Brain | None = None) -> _Queued:
        """Normalizes, infers and labels; a device may not be done on return."""
        volume, spec, workspace = self.volume, self.spec, self.workspace
        n_threads = self.options.n_threads
        with self.clock("normalize", 0.1):
            brain = find_brain(volume, workspace, n_threads) if brain is None else brain
            placement = placed(brain, volume, spec)
        engine, focus, looks, plan = self.engine(), Focus(placement), False, None
        if self.options.focus:
            focus = begun(self.finder(), volume, spec, placement)
            looks = not focus.reason
        if workspace.stream is None and not looks:
            plan = self._plan(engine, placement.padded)
        with self.clock("normalize", 0.1):
            prepared = normalize(volume, spec, workspace, n_threads, brain, plan and plan.packing)
        _log(prepared.brain.warnings)
        if looks:
            return self._focused(engine, prepared)
        return self._labelled(engine, prepared, focus, plan)

    def _focused(self, engine: Engine, prepared: Prepared) -> _Queued:
        """Infers and labels where the finder finds the tumour, on the CPU; or the whole brain."""
        finder, stride = self.finder(), self.spec.stride
        assert finder is not None, "it can look"
        with self.clock("find", 0.12):
            there = prepared.tensor, prepared.placement, stride
            focus = found(finder, *there, self.workspace, self.options.n_threads)
        queued = self._labelled(engine, prepared, focus)
        with self.clock("label", 0.95):
            checked = focus.checked(queued.labelling.labels, self.volume.geometry)
        return queued if checked is focus else self._labelled(engine, prepared, checked)

    def _labelled(
        self, engine: Engine, prepared: Prepared, focus: Focus, plan: Plan | None = None
    ) -> _Queued:
        """Infers and labels the tensor, or the part of it that the focus says."""
        volume, spec, workspace = self.volume, self.spec, self.workspace
        n_threads, placement = self.options.n_threads, focus.placement
        tensor = focus.tensor(prepared.tensor, workspace, n_threads)
        inferred = infer(engine, tensor, spec, self.options, self.clock, workspace, plan)
        if self.options.focus:
            inferred = replace(inferred, windows={**inferred.windows, "focus": focus.record})
        logits = inferred.logits
        with self.clock("label", 0.95):
            make = labelling_of(spec)
            labelling = make(logits, placement, volume.geometry, spec, workspace, n_threads)
            sums = probability_sums(logits, placement, spec, workspace, n_threads)
            if not isinstance(logits, PackedLogits):
                logits = workspace.own(logits)
        return _Queued(engine, prepared, inferred, labelling, sums, logits, placement)

    def _plan(self, engine: Engine, size: Size) -> Plan:
        """Made before the tensor, which may be packed."""
        n_bytes = 4 * len(self.spec.modalities) * math.prod(size)
        plan = planned(engine, size, self.spec, self.options, self.workspace, tensor_bytes=n_bytes)
        is_complete = tuple(self.volume.modalities) == tuple(self.spec.modalities)
        return plan if is_complete else plan._replace(packing=None)

    def _checked(self, queued: _Queued, inspected: Callable[[], Volume]) -> Predicted:
        """Looks at the case on the host while the device computes; then concludes."""
        with self.clock("check", 0.95):
            volume = inspected()
            _log(volume.warnings[len(self.volume.warnings) :])
            brain = queued.prepared.brain.corrected()
        known = replace(self, volume=volume)
        return known._concluded(queued if brain is None else known._queued(brain))

    def _concluded(self, queued: _Queued) -> Predicted:
        """The result, after a wait for all that is queued."""
        workspace, prepared, volume = self.workspace, queued.prepared, self.volume
        with self.clock("label" if workspace.stream is None else "wait", 0.95):
            numbers, sums, *counts = workspace.get(
                prepared.numbers, queued.sums, *queued.labelling.numbers
            )
            stats = statistics(prepared, numbers, volume)
            labelled = queued.labelling.concluded(*counts)
            confidences = confidence(sums, self.spec, labelled.volumes_ml)
            labels = labelled.labels
            if isinstance(volume.data, np.ndarray):
                (labels,) = workspace.get(labels)
        _log(doubts(confidences))
        timings_ms = self.clock.finish()
        logger.info("segmented in %.0f ms: %s ml", timings_ms["total"], labelled.volumes_ml)
        about = report(
            queued.engine,
            self.spec,
            volume,
            prepared,
            queued.inferred,
            labelled,
            stats,
            confidences,
            timings_ms,
        )
        return Predicted(
            labels,
            labelled.volumes_ml,
            timings_ms,
            about,
            volume,
            queued.logits,
            queued.placement,
        )


def _log(warnings: Sequence[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)
