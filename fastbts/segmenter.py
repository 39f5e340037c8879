"""The main job: `Segmenter.predict` reads as the data's way."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.engine.interface import Engine
from fastbts.engine.load import load_engine
from fastbts.errors import OptionsError
from fastbts.pipeline.label import postprocess
from fastbts.pipeline.normalize import Prepared, preprocess
from fastbts.pipeline.report import build_report
from fastbts.pipeline.window import WindowPlan
from fastbts.progress import Clock, Progress
from fastbts.read.inputs import as_volume
from fastbts.segmentation import Segmentation
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

logger = logging.getLogger("fastbts")

MAX_THREADS = 1024
MODES = ("auto", "one-pass", "sliding")


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """How to run; none of it changes what the network is."""

    mode: str = "auto"
    """"one-pass": the whole brain box at once, fastest; "sliding": overlapping windows, bounded memory; "auto": one pass up to
    `max_one_pass_voxels`."""
    overlap: float = 0.5
    """Least overlap of neighbouring sliding windows, as a fraction of their size."""
    max_one_pass_voxels: int = 12_000_000
    """Largest tensor that "auto" runs in one pass; a 1 mm brain box has about 4 million voxels and needs about 0.7 GB."""
    threads: int = 0
    """CPU threads; 0 for all."""
    allow_missing: bool = False
    """Whether a case may lack images that the engine was trained to do without. Not by itself, lest a misnamed file go unseen: the
    result without T1ce is far worse."""
    min_part_mm3: float | None = None
    """Connected parts of the whole tumour smaller than this become background, before the small-ET rule; 0 for off, None for what
    the engine's manifest says."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OptionsError(f"mode {self.mode!r}: expected one of {', '.join(MODES)}")
        if not isinstance(self.overlap, int | float) or not 0 <= self.overlap <= 0.9:
            raise OptionsError(f"overlap {self.overlap!r}: expected a number between 0 and 0.9")
        if not isinstance(self.threads, int) or not 0 <= self.threads <= MAX_THREADS:
            raise OptionsError(
                f"threads {self.threads!r}: expected 0 (all) or a whole number up to {MAX_THREADS}"
            )
        if not isinstance(self.max_one_pass_voxels, int) or self.max_one_pass_voxels < 0:
            raise OptionsError(
                f"max_one_pass_voxels {self.max_one_pass_voxels!r}: expected a whole number, 0 or more"
            )
        if not isinstance(self.allow_missing, bool):
            raise OptionsError(f"allow_missing {self.allow_missing!r}: expected True or False")
        part = 0 if self.min_part_mm3 is None else self.min_part_mm3
        if not isinstance(part, int | float) or not 0 <= part < math.inf:
            raise OptionsError(f"min_part_mm3 {part!r}: expected 0 (off) or a volume in mm3")


class Segmenter:
    """Segments brain tumours. Loads its engine and warms it up once; one Segmenter serves many threads.

    `spec` is the engine's, with what the options override: its `optional_modalities` are those that a case may lack here.

    Args:
        engine: A loaded engine, a path to a `.fbts` file, or None for the shipped engine.
        device: See `load_engine`.
        precision: See `load_engine`.
        options: How to run.
        warm_up: Runs the network once on zeros, so that the first case is as fast as the rest.
    Raises:
        EngineFileError, DeviceError, OptionsError: See `load_engine`.
    """

    def __init__(
        self,
        engine: Engine | str | Path | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        options: SegmenterOptions | None = None,
        warm_up: bool = True,
    ) -> None:
        self.options = options or SegmenterOptions()
        if engine is None or isinstance(engine, str | Path):
            engine = load_engine(
                engine, device=device, precision=precision, n_threads=self.options.threads
            )
        self.engine = engine
        self.spec = _overridden(engine.spec, self.options)
        if warm_up:
            stride = self.engine.spec.stride
            self.engine.infer(
                np.zeros((1, len(self.engine.spec.modalities), *(2 * stride,) * 3), np.float32)
            )

    def predict(
        self,
        case: Volume | NDArray[Any] | None = None,
        *,
        flair: Any = None,
        t1: Any = None,
        t1ce: Any = None,
        t2: Any = None,
        affine: NDArray[np.float64] | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segments one case.

        Args:
            case: A Volume, or an array (M, X, Y, Z) in the order of `engine.spec.modalities`; or none, and the modalities by name,
                of which those in `spec.optional_modalities` may be left out:
            flair: Path, nibabel image or array (X, Y, Z).
            t1: Likewise.
            t1ce: Likewise (contrast-enhanced T1).
            t2: Likewise.
            affine: Voxel index -> RAS+ mm, for arrays; identity (RAS+, 1 mm) if not given, with a warning in the report.
            progress: Called with the stage and the fraction done.
        Returns:
            Labels and volumes on the input's grid, with timings and report.
        Raises:
            InputError, GeometryError, CaseError: The input cannot be used.
        """
        clock = Clock(progress)
        with clock("read", 0.0):
            given = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
            volume = as_volume(case, given, affine, self.spec)
        with clock("normalize", 0.1):
            prepared = preprocess(volume, self.spec, self.options.threads)
        logits, windows = self._infer(prepared, clock)
        with clock("label", 0.95):
            labelled = postprocess(
                logits, prepared.placement, volume.geometry, self.spec, self.options.threads
            )
        timings_ms = clock.finish()
        volumes_ml = {
            region: n * volume.geometry.voxel_ml for region, n in labelled.n_voxels.items()
        }
        report = build_report(
            self.engine, volume, prepared, labelled, windows, volumes_ml, timings_ms
        )
        logger.info("segmented in %.0f ms: %s ml", timings_ms["total"], volumes_ml)
        return Segmentation(
            labelled.labels,
            volumes_ml,
            timings_ms,
            report,
            volume,
            logits,
            prepared.placement,
            self.spec.temperature,
        )

    def predict_batch(self, cases: Iterable[Volume | str | Path]) -> Iterator[Segmentation]:
        """Segments cases one after the other, reading the next while the present one is computed.

        Args:
            cases: Volumes or case folders, complete but for `spec.optional_modalities`.
        Yields:
            One Segmentation per case, in order.
        Raises:
            FastBTSError: A case cannot be used, when its turn comes; that ends the batch. To go on after bad cases call
                `predict` for each.
        """
        from fastbts.read.case import read_case

        def read(case: Volume | str | Path) -> Volume:
            return (
                case
                if isinstance(case, Volume)
                else read_case(case, optional=self.spec.optional_modalities)
            )

        with ThreadPoolExecutor(1) as reader:
            waiting = None
            for case in cases:
                upcoming = reader.submit(read, case)
                if waiting is not None:
                    yield self.predict(waiting.result())
                waiting = upcoming
            if waiting is not None:
                yield self.predict(waiting.result())

    def close(self) -> None:
        """Frees the engine."""
        self.engine.close()

    def _infer(
        self, prepared: Prepared, clock: Clock
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Runs the network over the tensor; returns logits (K, D, H, W) and what the windows were."""
        if self._one_pass(prepared):
            with clock("infer", 0.15):
                return self.engine.infer(prepared.tensor[None])[0], {"mode": "one-pass", "count": 1}
        n_d, n_h, n_w = prepared.tensor.shape[1:]
        plan = WindowPlan.cover((n_d, n_h, n_w), self.engine.spec.window, self.options.overlap)
        logits = np.zeros((len(self.engine.spec.regions), *prepared.tensor.shape[1:]), np.float32)
        part = np.empty((1, len(logits), *plan.size), np.float32)
        for b in range(len(plan)):
            origin = plan.origins[b : b + 1]
            with clock("window", 0.15 + 0.8 * b / len(plan)):
                window = ops.window(
                    prepared.tensor, origin, plan.size, n_threads=self.options.threads
                )
            with clock("infer", 0.15 + 0.8 * b / len(plan)):
                self.engine.infer(window, out=part)
            with clock("blend", 0.15 + 0.8 * (b + 1) / len(plan)):
                d, h, w = (axis[b : b + 1] for axis in plan.weights)
                ops.blend(part, origin, (d, h, w), logits, n_threads=self.options.threads)
        windows = {
            "mode": "sliding",
            "count": len(plan),
            "size_zyx": list(plan.size),
            "overlap": self.options.overlap,
        }
        return logits, windows

    def _one_pass(self, prepared: Prepared) -> bool:
        fits = prepared.tensor[0].size <= self.options.max_one_pass_voxels
        return self.options.mode == "one-pass" or (self.options.mode == "auto" and fits)


def _overridden(spec: EngineSpec, options: SegmenterOptions) -> EngineSpec:
    part = spec.min_part_mm3 if options.min_part_mm3 is None else options.min_part_mm3
    optional = spec.optional_modalities if options.allow_missing else ()
    return replace(spec, min_part_mm3=part, optional_modalities=optional)
