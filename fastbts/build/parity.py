"""How far a build of a network is from the same network in float32: on logits, on labels, and in Dice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.interface import Engine
from fastbts.errors import OptionsError
from fastbts.labels import REGION_LABELS
from fastbts.metrics import region_dice
from fastbts.read.reference import read_reference, reference_files
from fastbts.segmentation import Segmentation
from fastbts.segmenter import Segmenter, SegmenterOptions
from fastbts.volume import Volume

MIN_AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.995, "int8": 0.99}
"""Least share of equal region labels; int8 reaches 0.994 to 0.9996 when calibrated on the shapes it runs on, 0.76 to 0.987 else."""
MAX_DICE_LOSS = 0.01
"""Most that the Dice of any region may fall, mean over the cases."""


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A case with its truth, (i, j, k) uint8, values of `brats2021`."""

    volume: Volume
    truth: NDArray[np.uint8]


def labelled_cases(folders: Sequence[Path], volumes: Sequence[Volume]) -> list[LabelledCase]:
    """The cases to measure on: those with a reference segmentation in their folder, or the synthetic one if none has.

    Args:
        folders: Case folders; a file `*seg.nii.gz` is the truth (3 of BraTS 2023 counts as 4).
        volumes: The same cases, read.
    """
    truths = [_truth(folder) for folder in folders]
    cases = [LabelledCase(v, t) for v, t in zip(volumes, truths, strict=True) if t is not None]
    return cases or [synthetic_case()]


def synthetic_case() -> LabelledCase:
    """The phantom: says whether a build computes the same, nothing about accuracy on patients."""
    from fastbts.phantom import make_case

    case = make_case(0)
    return LabelledCase(case.volume, case.labels)


def measure_parity(
    reference: Engine, built: Engine, cases: Sequence[LabelledCase], progress: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Compares two engines on whole cases, from images to labels.

    Args:
        reference: The network in float32.
        built: What is to be measured.
        cases: At least one.
        progress: Called with the number of cases done.
    Returns:
        `n_cases`; `max_logit_difference`; `label_agreement`, the share of equal region labels inside the brain boxes; and
        `dice_change` per region, built less reference, mean over the cases.
    """
    one, two = (Segmenter(e, options=SegmenterOptions(mode="one-pass"), warm_up=False) for e in (reference, built))
    rows = []
    for n, case in enumerate(cases):
        rows.append(_compared(one.predict(case.volume), two.predict(case.volume), case.truth))
        progress(n + 1)
    return {
        "n_cases": len(rows),
        "max_logit_difference": max(difference for difference, _, _ in rows),
        "label_agreement": float(np.mean([agreement for _, agreement, _ in rows])),
        "dice_change": {r: round(float(np.mean([change[r] for _, _, change in rows])), 5) for r in REGION_LABELS},
    }


def check_parity(parity: dict[str, Any], precision: str) -> None:
    """Raises OptionsError if a build is worse than the bound for its precision."""
    agreement, worst = parity["label_agreement"], min(parity["dice_change"].values())
    if not agreement >= MIN_AGREEMENT[precision] or not worst >= -MAX_DICE_LOSS:
        raise OptionsError(
            f"precision {precision!r}: parity with float32 is worse than allowed: label agreement {agreement:.5f}, expected at "
            f"least {MIN_AGREEMENT[precision]}; Dice of a region changes by {worst:+.4f}, expected at most -{MAX_DICE_LOSS}; "
            "calibrate on more cases, choose a higher precision, or accept it with --accept-parity"
        )


def _compared(reference: Segmentation, built: Segmentation, truth: NDArray[np.uint8]) -> tuple[float, float, dict[str, float]]:
    """Largest logit difference, share of equal region labels, change of Dice."""
    inside = (slice(None), *reference.placement.in_tensor)
    a, b = reference.logits[inside], built.logits[inside]
    before, after = region_dice(reference.labels, truth), region_dice(built.labels, truth)
    return float(np.abs(a - b).max()), float(((a > 0) == (b > 0)).mean()), {r: after[r] - before[r] for r in after}






def _truth(folder: Path) -> NDArray[np.uint8] | None:
    found = reference_files(folder)
    return read_reference(found[0]) if len(found) == 1 else None
