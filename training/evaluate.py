"""Scores of an engine on labelled cases: `python -m training.evaluate --data DIR`.

Runs `fastbts.Segmenter` itself, files in, labels on the original grid out; so it measures what a user gets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastbts import MODALITIES, FastBTSError, Segmenter, SegmenterOptions, read_case
from fastbts.metrics import region_dice
from training.data.cases import find_cases, group_of, read_labels
from training.scores.calibration import Histogram, brain_logits, calibration_record, logit_histogram
from training.scores.lesions import lesion_scores
from training.scores.regions import region_scores
from training.scores.tables import Row, dice_rows, group_means, mean_row, summary, write_csv

SHOWN = {  # score -> what the console calls it
    "dice": "Dice", "hd95_mm": "HD95 mm, penalty", "hd95_nonempty_mm": "HD95 mm, non-empty", "sensitivity": "sensitivity",
    "precision": "precision", "specificity": "specificity", "lesion_recognition": "lesion F1", "lesion_dice": "lesion Dice",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of some cases.

    Attributes:
        rows: One per case and region, see `training.scores.regions.region_scores`.
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
    histograms = []
    for folder in track(folders, "evaluating"):
        result, reference = segmenter.predict(read_case(folder)), read_labels(folder)
        scores = region_scores(result.labels, reference, result.volume.geometry.spacing_mm)
        more = lesion_scores(result.labels, reference) if lesions else {}
        rows += [
            {"case": folder.name, "region": region, **s, **more.get(region, {})}
            for region, s in scores.items()
        ]
        histograms.append(logit_histogram(*brain_logits(result, reference)))
    return Evaluation(rows, np.sum(histograms, axis=0))


def dice_without(segmenter: Segmenter, folders: list[Path], modality: str) -> dict[str, float]:
    """Mean over cases of Dice with one image left out: WT, TC, ET and their mean.

    Raises:
        CaseError: The engine was not trained for that, or the segmenter does not allow it.
    """
    scores = []
    for folder in track(folders, f"without {modality}"):
        volume = read_case(folder)
        labels = segmenter.predict(
            volume.select([m for m in volume.modalities if m != modality])
        ).labels
        scores.append(region_dice(labels, read_labels(folder)))
    means = {region: fmean(score[region] for score in scores) for region in scores[0]}
    return {**means, "mean": fmean(means.values())}


def dropped(wanted: list[str], every: bool, optional: tuple[str, ...]) -> list[str]:
    """The modalities to leave out, one at a time.

    Raises:
        FastBTSError: The engine cannot do without one of them, or, where `every` is asked for, without any.
    """
    modalities = [*optional] if every else wanted
    if (every and not optional) or not set(modalities) <= set(optional):
        raise FastBTSError(f"leaving out {', '.join(modalities) or 'modalities'}: the engine can do without "
                           f"{', '.join(optional) or 'none'}; train one with fusion and modality dropout")  # fmt: skip
    return modalities


def dice_table(rows: list[Row], groups: dict[str, Row], title: str) -> Table:
    """Dice per case, then the means of each group and of all."""
    table = Table("case", *[k for k in rows[0] if k != "case"], title=title)
    means = [{"case": f"{group} (n={mean['n']})", **mean} for group, mean in groups.items()]
    for row in [*rows, *means, mean_row(rows)]:
        table.add_row(row["case"], *[f"{v:.4f}" for k, v in row.items() if k not in ("case", "n")])
    return table


def summary_table(means: dict[str, dict[str, dict[str, Any]]], n_cases: int) -> Table:
    """Mean over cases of every score, then the mean over regions; n where it is not all of them."""
    table = Table("score", *means, title=f"means over n = {n_cases} cases")
    expected = {region: len(means) - 1 if region == "mean" else n_cases for region in means}
    for name in (name for name in SHOWN if name in means["mean"]):
        table.add_row(
            SHOWN[name],
            *[_cell(scores[name], expected[region]) for region, scores in means.items()],
        )
    return table


def calibration_line(calibration: dict[str, Any]) -> str:
    """Expected calibration errors, for the console."""
    errors = ", ".join(f"{region} {error:.5f}" for region, error in calibration["ece"].items())
    return f"expected calibration error: {errors}; over {calibration['n_voxels']} brain voxels, {calibration['bins']} bins"


def _cell(score: dict[str, Any], expected: int) -> str:
    if score["mean"] is None:
        return "-"
    return f"{score['mean']:.4g}" + (f" (n={score['n']})" if score["n"] != expected else "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, help="engine file; default: the shipped engine")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled cases, with cases.csv"
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--mode", default="auto", help="auto, one-pass or sliding")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument(
        "--lesions", action="store_true", help="also lesion-wise scores (panoptica)"
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        choices=MODALITIES,
        help="also score without this image; repeatable",
    )
    parser.add_argument(
        "--missing-modalities",
        action="store_true",
        help="--drop for every image that the engine can do without",
    )
    parser.add_argument("--json", type=Path, help="also write all of it here")
    parser.add_argument("--csv", type=Path, help="also write one line per case and region here")
    parser.add_argument("--figure", type=Path, help="also draw it, as PNG (matplotlib)")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    args, console = _arguments(), Console()
    options = SegmenterOptions(
        mode=args.mode, allow_missing=bool(args.drop) or args.missing_modalities
    )
    segmenter = Segmenter(args.engine, precision=args.precision, options=options)
    spec, folders = segmenter.spec, find_cases(args.data, args.split)
    without = dropped(args.drop, args.missing_modalities, spec.optional_modalities)
    evaluation = evaluate(segmenter, folders, lesions=args.lesions)
    cases, means = dice_rows(evaluation.rows), summary(evaluation.rows)
    calibration = calibration_record(evaluation.histogram, spec.temperature)
    groups = group_means(cases, {folder.name: group_of(folder) for folder in folders})
    console.print(dice_table(cases, groups, f"Dice, {spec.name}, {args.mode}"))
    console.print(summary_table(means, len(folders)))
    console.print(calibration_line(calibration))
    whole, losses = mean_row(cases)["mean"], {}
    for modality in without:
        score = dice_without(segmenter, folders, modality)
        losses[modality] = {"dice": score, "loss": whole - score["mean"]}
        regions = ", ".join(f"{region} {value:.4f}" for region, value in score.items())
        console.print(
            f"without {modality}: {regions}; {losses[modality]['loss']:+.4f} lost (n={len(folders)})"
        )
    if args.csv:
        write_csv(args.csv, evaluation.rows)
    if args.json:
        about = {
            "engine": spec.name,
            **segmenter.engine.description,
            "mode": args.mode,
            "split": args.split,
        }
        scores = {
            "cases": cases,
            "mean": mean_row(cases),
            "groups": groups,
            "regions": evaluation.rows,
            "summary": means,
        }
        everything = {**about, **scores, "calibration": calibration, "missing_modalities": losses}
        args.json.write_text(json.dumps(everything, indent=1) + "\n")
    if args.figure:
        from training.scores.figure import write_figure

        write_figure(
            args.figure, spec.name, evaluation.rows, evaluation.histogram, spec.temperature
        )


if __name__ == "__main__":
    main()
