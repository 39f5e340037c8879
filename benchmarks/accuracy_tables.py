"""The tables of accuracy, from the results of `training evaluate`."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from benchmarks.markdown import table

REGIONS = ("WT", "TC", "ET", "mean")
GROUPS = {
    "HGG": "high-grade gliomas",
    "LGG": "low-grade gliomas",
    "2021": "BraTS 2021",
    "SSA": "BraTS-Africa",
}
SCORES = {  # key in the evaluation's summary -> name in the table
    "hd95_mm": "HD95, mm",
    "hd95_nonempty_mm": "HD95 where both have voxels, mm",
    "sensitivity": "sensitivity",
    "lesion_recognition": "lesions found, F1",
    "lesion_dice": "Dice of the lesions found",
}
PAPER_DICE = 0.8567  # "overall", BraTS 2020: abstract of arXiv 2507.09966 v1


def dice_table(results: dict[str, Any]) -> str:
    """Dice per case and mean, and the difference from the paper's."""
    rows = [(row["case"], *_dice(row)) for row in [*results["cases"], results["mean"]]]
    difference = results["mean"]["mean"] - PAPER_DICE
    return table(
        ("case", *REGIONS),
        rows,
        f"The mean is {abs(difference):.3f} {'above' if difference > 0 else 'below'} the "
        f"{PAPER_DICE} overall that the paper reports, on other data (BraTS 2020).",
    )


def groups_table(
    results: dict[str, Any], former: dict[str, Any], confidence: dict[str, Any]
) -> str:
    """Dice by group, beside the former engine's on the same cases and that of training cases."""
    names = [name for name in GROUPS if name in results["groups"]]
    rows = [
        _group_row(GROUPS[n], results["groups"][n], former["groups"][n], _trained(confidence, n))
        for n in names
    ]
    all_cases = {"n": len(results["cases"]), **results["mean"]}
    rows.append(_group_row("all", all_cases, former["mean"], _trained(confidence)))
    columns = ("cases", "n", *REGIONS, "former engine", "training cases")
    return table(columns, rows)


def _group_row(title: str, new: dict[str, Any], old: dict[str, Any], trained: str) -> list[str]:
    return [title, str(new["n"]), *_dice(new), f"{old['mean']:.3f}", trained]


def _trained(confidence: dict[str, Any], group: str = "") -> str:
    """Mean Dice of the training cases of a group, or of all, with their number."""
    rows = [row for row in confidence["cases"]["train"] if group in ("", row["group"])]
    return f"{fmean(fmean(row['dice'].values()) for row in rows):.3f} (n={len(rows)})"


def _dice(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{row[region]:.3f}" for region in REGIONS)


def scores_table(results: dict[str, Any]) -> str:
    """Means per region of the other scores, Dice without each modality, calibration."""
    n_cases, calibration = len(results["cases"]), results["calibration"]
    rows = [
        *_score_rows(results["summary"], n_cases),
        *(
            (f"Dice without {modality}", *(f"{score['dice'][r]:.3f}" for r in REGIONS))
            for modality, score in results["missing_modalities"].items()
        ),
        ("expected calibration error", *(f"{calibration['ece'][r]:.4f}" for r in REGIONS)),
        (
            "the same, without temperatures",
            *(f"{calibration['ece_uncalibrated'][r]:.4f}" for r in REGIONS),
        ),
        *(
            (name, *(f"{calibration[key][r]:.2f}" for r in REGIONS[:3]), "")
            for name, key in (
                ("temperature of the engine", "temperatures"),
                ("best temperature for these cases", "best_temperatures"),
            )
        ),
    ]
    return table(
        ("score", *REGIONS),
        rows,
        f"n = {n_cases} cases. Calibration over {calibration['n_voxels'] / 1e6:.1f} million brain "
        f"voxels in {calibration['bins']} bins, each region separately.",
    )


def _score_rows(summary: dict[str, Any], n_cases: int) -> Iterable[tuple[str, ...]]:
    for key, name in SCORES.items():
        if key in summary["mean"]:  # lesion-wise scores need --lesions
            expected = {r: 3 if r == "mean" else n_cases for r in REGIONS}
            yield name, *(_score(summary[r][key], expected[r]) for r in REGIONS)


def _score(score: dict[str, Any], expected: int) -> str:
    """A mean; with its n where that is not all."""
    mean = "-" if score["mean"] is None else f"{score['mean']:#.3g}"
    return mean if score["n"] == expected else f"{mean} (n={score['n']})"


TABLES = {
    "dice": (dice_table, "dice-val.json"),
    "groups": (groups_table, "dice-val.json", "dice-former.json", "confidence.json"),
    "scores": (scores_table, "dice-val.json"),
}
