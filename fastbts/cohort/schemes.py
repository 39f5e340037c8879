"""Which label scheme each label image has: by its report, else by the values of all images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.cohort.pairs import WHOLE, Labels
from fastbts.errors import FastBTSError, InputError, OptionsError
from fastbts.labels import SCHEMES
from fastbts.read.reference import read_labels
from fastbts.write.ours import own_report

AUTO = "auto"
LABELS, REFERENCE_LABELS = "--labels", "--reference-labels"
"""Options of `fastbts evaluate`."""

Scheme = str | Mapping[str, tuple[int, ...]]
"""Key of `SCHEMES`; or an engine's regions other than WT, TC and ET, with their labels."""


def check_known(scheme: str) -> None:
    """Raises OptionsError unless the scheme is "auto" or a key of `SCHEMES`."""
    if scheme not in (AUTO, *SCHEMES):
        raise OptionsError(
            f"label scheme {scheme!r}: expected one of {', '.join([AUTO, *SCHEMES])}; masks of "
            "WT, TC and ET are recognised by their names, *seg_WT.nii.gz"
        )


def schemes_of(
    cases: Iterable[Labels], scheme: str = AUTO, option: str = LABELS
) -> tuple[dict[Path, Scheme], str]:
    """Label image -> its scheme, and a note if that is a guess that may be wrong.

    Args:
        cases: Of one side, results or references. Masks have no scheme.
        scheme: Of all; "auto": what the report of an image says. The others are taken for images of
            one scheme, by the values in all of them: 4 is the enhancing tumour of `brats2021`, 3
            that of `brats2023`.
        option: That sets the scheme, for messages.
    Raises:
        InputError: There are both values, so that either may be meant.
    """
    paths = [files[WHOLE] for files in cases if WHOLE in files]
    if scheme != AUTO:
        return dict.fromkeys(paths, scheme), ""
    stated = _stated(paths)
    others = [path for path in paths if path not in stated]
    guess, note = _guessed(others, option) if others else ("", "")
    return {**dict.fromkeys(others, guess), **stated}, note


def _stated(paths: Iterable[Path]) -> dict[Path, Scheme]:
    """What the reports beside the images say; each report is read once."""
    wanted = set(paths)
    found: dict[Path, Scheme] = {}
    for folder in {path.parent for path in wanted}:
        for place in sorted(folder.glob("*.json")):
            if (report := own_report(place)) and (scheme := _scheme_in(report)):
                names = (place.with_name(name) for name in report["files_sha256"])
                found |= {path: scheme for path in names if path in wanted}
    return found


def _scheme_in(report: Mapping[str, Any]) -> Scheme | None:
    if own := report.get("region_labels"):
        return {region: tuple(values) for region, values in own.items()}
    scheme = report.get("label_scheme")
    return scheme if scheme in SCHEMES else None


def _guessed(paths: Sequence[Path], option: str) -> tuple[str, str]:
    """The scheme of all by the value of the enhancing tumour."""
    first: dict[int, Path] = {}
    for path in paths:
        for value in _present(path) & {3, 4}:
            first.setdefault(value, path)
    if {*first} == {3, 4}:
        where = f"has label 3, and {first[4]} label 4"
        where = "has labels 3 and 4" if first[3] == first[4] else where
        raise InputError(
            f"{first[3]}: {where}, so the enhancing tumour is not clear; give the label scheme of "
            f"all: {option} {', '.join(SCHEMES)} (in brats2024 3 is enhancing tumour, and 4 the "
            "resection cavity)"
        )
    if 4 in first:
        return "brats2021", (
            "label 4 is taken for enhancing tumour (brats2021), as no image has label 3; if it is "
            f"the resection cavity, give {option} brats2024"
        )
    return "brats2023" if 3 in first else "brats2021", ""


def _present(path: Path) -> set[int]:
    """Values in an image; none if it cannot be read, which scoring it reports."""
    try:
        return {int(value) for value in np.unique(read_labels(path, 255))}
    except FastBTSError:
        return set()
