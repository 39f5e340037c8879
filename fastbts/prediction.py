"""One case on its way through the stages: normalize, infer, label, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastbts.device.interface import Array, Workspace
from fastbts.engine.interface import Engine
from fastbts.errors import FastBTSError
from fastbts.options import SegmenterOptions
from fastbts.pipeline.brain import Brain
from fastbts.pipeline.confidence import confidence, doubts, probability_sums
from fastbts.pipeline.infer import Inferred, infer
from fastbts.pipeline.label import Labelling
from fastbts.pipeline.normalize import Prepared, normalize, statistics
from fastbts.pipeline.report import report
from fastbts.progress import Clock
from fastbts.read.quality import inspected
from fastbts.read.sample import Coarse
from fastbts.segmentation import Segmentation
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

logger = logging.getLogger("fastbts")


@dataclass(frozen=True, eq=False)
class _Queued:
    """What the stages have queued for a case; on a device it may not be done."""

    engine: Engine
    prepared: Prepared
    inferred: Inferred
    labelling: Labelling
    sums: Array
    logits: Array


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
    """

    volume: Volume
    spec: EngineSpec
    options: SegmenterOptions
    clock: Clock
    workspace: Workspace
    engine: Callable[[], Engine]

    def run(self, *, inspect: bool = False) -> Segmentation:
        """Segments the case.

        Args:
            inspect: On a device: whether the case needs quality control still.

        Raises:
            FastBTSError: See `Segmenter.predict`.
        """
        if self.workspace.stream is None:
            return self._concluded(self._queued())
        coarse = Coarse.of(self.volume, self.workspace) if inspect else None
        try:
            queued = self._queued()
        except FastBTSError:
            self._inspected(coarse)  # raises what the CPU finds first, if it is another error
            raise
        return self._checked(queued, coarse)

    def _queued(self, brain: Brain | None = None) -> _Queued:
        """Normalizes, infers and labels; a device may not be done on return."""
        volume, spec, workspace = self.volume, self.spec, self.workspace
        n_threads = self.options.n_threads
        with self.clock("normalize", 0.1):
            prepared = normalize(volume, spec, workspace, n_threads, brain)
        _log(prepared.brain.warnings)
        engine = self.engine()
        inferred = infer(engine, prepared.tensor, spec, self.options, self.clock, workspace)
        logits, placement = inferred.logits, prepared.placement
        with self.clock("label", 0.95):
            labelling = Labelling(logits, placement, volume.geometry, spec, workspace, n_threads)
            sums = probability_sums(logits, placement, spec, workspace, n_threads)
            logits = workspace.own(logits)
        return _Queued(engine, prepared, inferred, labelling, sums, logits)

    def _checked(self, queued: _Queued, coarse: Coarse | None) -> Segmentation:
        """Looks at the case on the host while the device computes; then concludes."""
        with self.clock("check", 0.95):
            volume = self._inspected(coarse)
            _log(volume.warnings[len(self.volume.warnings) :])
            brain = queued.prepared.brain.corrected()
        known = replace(self, volume=volume)
        return known._concluded(queued if brain is None else known._queued(brain))

    def _inspected(self, coarse: Coarse | None) -> Volume:
        return self.volume if coarse is None else inspected(self.volume, coarse)

    def _concluded(self, queued: _Queued) -> Segmentation:
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
        return Segmentation(
            labels,
            labelled.volumes_ml,
            timings_ms,
            about,
            volume,
            queued.logits,
            prepared.placement,
            self.spec.temperature,
        )


def _log(warnings: Sequence[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)
