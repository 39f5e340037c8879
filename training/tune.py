"""Tuning: chooses an engine's settings after the network, on validation cases.

The network runs once per case. Then the temperatures are chosen by likelihood, thresholds and
small-part rules by Dice on the input's grid. The choice is written into the engine's manifest, with
the scores before and after: `python -m training tune ENGINE --data DIR`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fastbts import EngineSpec, Geometry, Segmenter, SegmenterOptions
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.metrics import region_dice
from fastbts.pipeline.label import label
from fastbts.placement import Placement
from training.data.cases import find_cases, group_of, read_images, read_labels
from training.scores.calibration import (
    Histogram,
    brain_logits,
    calibration_errors,
    fit_temperature,
    logit_histogram,
    mean_nll,
)
from training.scores.groups import balanced_mean

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))
VOLUMES_MM3 = (10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
LEAST_GAIN = 0.001  # of the mean Dice
NOT_WORSE = 0.8  # share of the cases
RULE = (
    "from thresholds of 0.5 and no small-part rules, one parameter after the other: a setting is "
    f"taken where at least {NOT_WORSE:.0%} of the cases are not worse, and the gain in Dice (mean "
    f"of the regions, groups of cases count the same) is above {LEAST_GAIN} and its standard error"
)
SETTINGS = ("temperatures", "thresholds", "stray_core_mm3", "min_et_mm3", "min_part_mm3")
STRAY_CORE_MM3 = 500.0
"""The rule for stray core is taken from this size on, or not: it changes few cases."""
Gains = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TuningCase:
    """A case after inference.

    Attributes:
        logits: (K, D, H, W) float32 on the tensor's grid.
        placement: Position of the tensor in the image.
        geometry: The image's grid.
        reference: Labels (i, j, k) uint8, of the engine's regions.
        group: Name of a group of similar cases, from cases.csv.
    """

    logits: NDArray[np.float32]
    placement: Placement
    geometry: Geometry
    reference: NDArray[np.uint8]
    group: str = ""

    def dice(self, spec: EngineSpec) -> dict[str, float]:
        """Dice of each region under a spec's thresholds and rules."""
        result = label(self.logits, self.placement, self.geometry, spec)
        return region_dice(result.labels, self.reference, spec.region_labels)


def infer(segmenter: Segmenter, folders: list[Path]) -> tuple[list[TuningCase], Histogram]:
    """Runs the network once per case.

    Returns:
        The cases, and the histogram of logits at brain voxels, (K, 2, bins).
    """
    cases, histograms, spec = [], [], segmenter.spec
    for folder in track(folders, "inferring"):
        result, reference = (
            segmenter.predict(read_images(folder, spec.modalities)),
            read_labels(folder, spec),
        )
        placed = result.logits, result.placement, result.volume.geometry
        cases.append(TuningCase(*placed, reference, group_of(folder)))
        histograms.append(logit_histogram(*brain_logits(result, reference)))
    return cases, np.sum(histograms, axis=0)


def tuned(spec: EngineSpec, cases: list[TuningCase], histogram: Histogram) -> EngineSpec:
    """Chooses temperatures, thresholds and rules for parts by `RULE`; ignores those of `spec`."""
    temperatures, halves = tuple(map(fit_temperature, histogram)), (0.5,) * len(spec.regions)
    spec = replace(
        spec,
        temperatures=temperatures,
        thresholds=halves,
        stray_core_mm3=0.0,
        min_et_mm3=0.0,
        min_part_mm3=0.0,
    )
    for region in reversed(range(len(halves))):  # ET first: TC contains ET, WT contains TC
        spec = best(cases, spec, (_with_threshold(spec, region, t) for t in THRESHOLDS))
    spec = best(cases, spec, (replace(spec, min_part_mm3=mm3) for mm3 in VOLUMES_MM3))
    if not spec.is_glioma:
        return spec
    spec = best(cases, spec, [replace(spec, stray_core_mm3=STRAY_CORE_MM3)])
    return best(cases, spec, (replace(spec, min_et_mm3=mm3) for mm3 in VOLUMES_MM3))


def best(cases: list[TuningCase], spec: EngineSpec, candidates: Iterable[EngineSpec]) -> EngineSpec:
    """The accepted candidate of largest mean gain, the first of equals; else `spec` itself."""
    before, groups = case_scores(cases, spec), [case.group for case in cases]
    chosen, largest = spec, 0.0
    for candidate in candidates:
        gains = case_scores(cases, candidate) - before
        gain, _ = balanced_mean(gains, groups)
        if accepted(gains, groups) and gain > largest:
            chosen, largest = candidate, gain
    return chosen


def case_scores(cases: list[TuningCase], spec: EngineSpec) -> Gains:
    """Mean over the regions of each case's Dice, (n,)."""
    return np.array([np.mean([*case.dice(spec).values()]) for case in cases])


def accepted(gains: Gains, groups: Sequence[str]) -> bool:
    """Whether a setting that changes the cases' Dice by `gains` is taken; see `RULE`."""
    gain, error = balanced_mean(gains, groups)
    return gain > max(LEAST_GAIN, error) and bool(np.mean(gains >= 0) >= NOT_WORSE)


def scores(spec: EngineSpec, cases: list[TuningCase], histogram: Histogram) -> dict[str, Any]:
    """Scores of a spec, for the manifest.

    Returns:
        "dice" and "ece" (brain voxels, 15 bins), per region and "mean"; "nll" over all regions;
        "settings", what was chosen.
    """
    per_case = [case.dice(spec) for case in cases]
    dice = {region: float(np.mean([case[region] for case in per_case])) for region in spec.regions}
    return {
        "dice": {**dice, "mean": float(np.mean([*dice.values()]))},
        "ece": calibration_errors(histogram, spec.temperatures, spec.regions),
        "nll": fmean(map(mean_nll, histogram, spec.temperatures)),
        "settings": {name: getattr(spec, name) for name in SETTINGS},
    }


def tune(
    engine: Path, target: Path, folders: list[Path], *, split: str, precision: str = "auto"
) -> dict[str, Any]:
    """Writes the engine with tuned settings, atomically; the target may be the engine itself.

    Args:
        engine: An engine file.
        target: The file to write.
        folders: Labelled cases that the network was not trained on.
        split: Their name, for the record.
        precision: See `Segmenter`; thresholds differ little between them.
    Returns:
        The manifest's record "tuned": n_cases, split, precision, rule, before, after.
    """
    segmenter = Segmenter(engine, precision=precision, options=SegmenterOptions())
    cases, histogram = infer(segmenter, folders)
    file = read_engine_file(engine)
    spec = tuned(file.spec, cases, histogram)
    record = {
        "n_cases": len(cases),
        "split": split,
        "precision": segmenter.engine.description["precision"],
        "rule": RULE,
        "before": scores(file.spec, cases, histogram),
        "after": scores(spec, cases, histogram),
    }
    kept = {k: v for k, v in file.manifest.items() if k not in ("spec", "payloads", "tuned")}
    payloads = {name: bytes(content) for name, content in file.payloads.items()}
    write_engine_file(target, spec, payloads, **kept, tuned=record)
    return record


def _with_threshold(spec: EngineSpec, region: int, threshold: float) -> EngineSpec:
    values = (threshold if i == region else t for i, t in enumerate(spec.thresholds))
    return replace(spec, thresholds=tuple(values))


def command(
    engine: Annotated[Path, typer.Argument(help="engine file of `training export`")],
    data: Annotated[Path, typer.Option(help="folder of labelled cases, with cases.csv")],
    split: Annotated[str, typer.Option(help="split of cases.csv")] = "val",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="engine file to write; default: ENGINE")
    ] = None,
) -> None:
    """Choose an engine's temperatures, thresholds and small-part rules."""
    target = out or engine
    record = tune(engine, target, find_cases(data, split), split=split, precision=precision)
    console = Console()
    for when in ("before", "after"):
        console.print(f"{when}: {_line(record[when])}")
    console.print(f"{target}: tuned on n = {record['n_cases']} cases of {split}: {record['rule']}")


def _line(about: dict[str, Any]) -> str:
    dice, ece = (
        ", ".join(f"{region} {value:.4f}" for region, value in about[key].items())
        for key in ("dice", "ece")
    )
    return f"Dice {dice}; ECE {ece}; NLL {about['nll']:.5f}; {about['settings']}"
