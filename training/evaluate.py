"""Scores of an engine on labelled cases: `python -m training evaluate --data DIR`.

Runs `fastbts.Segmenter` from files to labels on the original grid, so it measures what a user gets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from fastbts import EngineSpec, FastBTSError, Segmenter, SegmenterOptions
from fastbts.metrics import region_dice
from fastbts.scores.console import dice_table, summary_table
from fastbts.scores.lesions import lesion_scores
from fastbts.scores.regions import region_scores
from fastbts.scores.tables import Row, dice_rows, group_means, mean_row, summary, write_csv
from training.data.cases import find_cases, group_of, read_images, read_labels
from training.scores.calibration import Histogram, brain_logits, calibration_record, logit_histogram
from training.scores.groups import balanced_mean


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of some cases.

    Attributes:
        rows: One per case and region, see `fastbts.scores.regions.region_scores`.
        histogram: Of the logits at brain voxels, (K, 2, bins), see `training.scores.calibration`.
    """

    rows: list[Row]
    histogram: Histogram


def evaluate(segmenter: Segmenter, folders: list[Path], *, lesions: bool = False) -> Evaluation:
    """Segments each case and scores it against its labels.

    Args:
        segmenter: With the engine.
        folders: Labelled cases.
        lesions: Whether to add the lesion-wise scores, which need panoptica.
    """
    rows: list[Row] = []
    histograms, spec = [], segmenter.spec
    for folder in track(folders, "evaluating"):
        result, reference = (
            segmenter.predict(read_images(folder, spec.modalities)),
            read_labels(folder, spec),
        )
        pair, regions = (result.labels, reference), spec.region_labels
        scores = region_scores(*pair, result.volume.geometry.spacing_mm, regions)
        more = lesion_scores(*pair, regions) if lesions else {}
        rows += [
            {"case": folder.name, "region": region, **s, **more.get(region, {})}
            for region, s in scores.items()
        ]
        histograms.append(logit_histogram(*brain_logits(result, reference)))
    return Evaluation(rows, np.sum(histograms, axis=0))


def dice_without(segmenter: Segmenter, folders: list[Path], modality: str) -> dict[str, float]:
    """Mean over cases of Dice with one image left out: of each region, and their mean.

    Raises:
        CaseError: The engine needs this image, or the segmenter's options forbid it.
    """
    scores, spec = [], segmenter.spec
    for folder in track(folders, f"without {modality}"):
        volume = read_images(folder, spec.modalities)
        labels = segmenter.predict(
            volume.select([m for m in volume.modalities if m != modality])
        ).labels
        scores.append(region_dice(labels, read_labels(folder, spec), spec.region_labels))
    means = {region: fmean(score[region] for score in scores) for region in scores[0]}
    return {**means, "mean": fmean(means.values())}


def dropped(wanted: list[str], every: bool, optional: tuple[str, ...]) -> list[str]:
    """The modalities to leave out, one at a time.

    Raises:
        FastBTSError: The engine needs one of them; or `every` is asked for and it needs all.
    """
    modalities = [*optional] if every else wanted
    if (every and not optional) or not set(modalities) <= set(optional):
        raise FastBTSError(
            f"leaving out {', '.join(modalities) or 'modalities'}: the engine can do without "
            f"{', '.join(optional) or 'none'}; train one with fusion and modality dropout"
        )
    return modalities


def all_scores(
    evaluation: Evaluation,
    folders: list[Path],
    spec: EngineSpec,
    missing: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Everything that was measured, for the console and as JSON.

    Args:
        evaluation: Scores of the cases.
        folders: The cases.
        spec: Of the engine.
        missing: For each modality left out, what `dice_without` returned.
    """
    cases = dice_rows(evaluation.rows)
    mean = mean_row(cases)
    groups = {folder.name: group_of(folder) for folder in folders}
    means, names = zip(*((case["mean"], groups[case["case"]]) for case in cases), strict=True)
    mean_of_groups, error = balanced_mean(np.array(means), names)
    losses = {m: {"dice": d, "loss": mean["mean"] - d["mean"]} for m, d in missing.items()}
    return {
        "cases": cases,
        "mean": mean,
        "groups": group_means(cases, groups),
        "balanced": {
            "mean": mean_of_groups,
            "standard_error": error if np.isfinite(error) else None,
        },
        "regions": evaluation.rows,
        "summary": summary(evaluation.rows),
        "calibration": calibration_record(evaluation.histogram, spec.temperatures, spec.regions),
        "missing_modalities": losses,
    }


def show(scores: dict[str, Any], title: str) -> None:
    """Prints the scores."""
    console, n = Console(), len(scores["cases"])
    console.print(dice_table(scores["cases"], scores["groups"], title))
    console.print(summary_table(scores["summary"], n))
    mean, error = scores["balanced"].values()
    error = "undefined: too few cases" if error is None else f"{error:.4f}"
    console.print(f"mean of the groups {mean:.4f}, its standard error {error}")
    console.print(calibration_line(scores["calibration"]))
    for modality, without in scores["missing_modalities"].items():
        regions = ", ".join(f"{region} {value:.4f}" for region, value in without["dice"].items())
        console.print(f"without {modality}: {regions}; {without['loss']:+.4f} lost (n={n})")


def calibration_line(calibration: dict[str, Any]) -> str:
    """Expected calibration errors, for the console."""
    errors = ", ".join(f"{region} {error:.5f}" for region, error in calibration["ece"].items())
    n, bins = calibration["n_voxels"], calibration["bins"]
    return f"expected calibration error: {errors}; over {n} brain voxels, {bins} bins"


def command(
    data: Annotated[Path, typer.Option(help="folder of labelled cases, with cases.csv")],
    engine: Annotated[
        Path | None, typer.Option(help="engine file; default: the shipped engine")
    ] = None,
    split: Annotated[str, typer.Option(help="split of cases.csv")] = "val",
    mode: Annotated[str, typer.Option(help="auto, one-pass or sliding")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, or one that the engine has")] = "auto",
    lesions: Annotated[
        bool, typer.Option("--lesions", help="also lesion-wise scores (panoptica)")
    ] = False,
    drop: Annotated[
        list[str] | None, typer.Option(help="also score without this image; repeatable")
    ] = None,
    missing_modalities: Annotated[
        bool,
        typer.Option("--missing-modalities", help="--drop for each image the engine may miss"),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all scores to")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="file to write one line per case and region to")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file to write (matplotlib)")] = None,
) -> None:
    """Score an engine on labelled cases."""
    folders = find_cases(data, split)
    options = SegmenterOptions(mode=mode, allow_missing=bool(drop) or missing_modalities)
    segmenter = Segmenter(engine, precision=precision, options=options)
    spec = segmenter.spec
    without = dropped(drop or [], missing_modalities, spec.optional_modalities)
    evaluation = evaluate(segmenter, folders, lesions=lesions)
    missing = {modality: dice_without(segmenter, folders, modality) for modality in without}
    scores = all_scores(evaluation, folders, spec, missing)
    show(scores, f"Dice, {spec.name}, {mode}")
    if csv_file:
        write_csv(csv_file, evaluation.rows)
    if json_file:
        about = {"engine": spec.name, **segmenter.engine.description, "mode": mode, "split": split}
        json_file.write_text(json.dumps({**about, **scores}, indent=1) + "\n")
    if figure:
        from training.scores.figure import write_figure

        write_figure(figure, spec.name, evaluation.rows, evaluation.histogram, spec.temperatures)
