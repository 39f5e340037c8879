"""Scores results against reference labels, in any label scheme. Needs no engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbts.cohort.pairs import WHOLE, Labels
from fastbts.cohort.schemes import Scheme
from fastbts.errors import GeometryError, InputError
from fastbts.labels import ED, ET, NCR, REGION_LABELS, SCHEMES
from fastbts.read.nifti import read_header
from fastbts.read.reference import read_labels
from fastbts.scores.lesions import lesion_scores
from fastbts.scores.regions import region_scores
from fastbts.scores.tables import Row
from fastbts.volume import Geometry

CAVITY = 4
"""Resection cavity in `brats2024`: in none of WT, TC and ET."""


def score_case(
    name: str,
    result: Labels,
    reference: Labels,
    *,
    scheme: Scheme | None = None,
    reference_scheme: Scheme | None = None,
    lesions: bool = False,
) -> list[Row]:
    """Scores of each region of a case.

    Args:
        name: Of the case.
        result: Its label image, or masks by region.
        reference: The same.
        scheme: Of the result, see `schemes_of`: a key of `SCHEMES`; the regions of an engine for
            other ones than WT, TC and ET, whose labels the reference has too; or None for masks.
        reference_scheme: Of the reference, unless the result has other regions.
        lesions: Whether to add lesion-wise scores, which need panoptica.
    Returns:
        One row per region, see `region_scores` and `lesion_scores`.
    Raises:
        InputError, GeometryError: A file cannot be read, or the grids differ.
        DeviceError: The extra "evaluate" is not installed.
    """
    given, expected = (next(iter(x.values())) for x in (result, reference))
    geometry = _one_grid(given, expected)
    if isinstance(scheme, Mapping):
        pair = read_labels(_image(result), 255), read_labels(_image(reference), 255)
    else:
        pair = read_as(result, scheme), read_as(reference, reference_scheme)
    regions = scheme if isinstance(scheme, Mapping) else REGION_LABELS
    scores = region_scores(*pair, geometry.spacing_mm, regions)
    more = lesion_scores(*pair, regions) if lesions else {}
    return [{"case": name, "region": r, **s, **more.get(r, {})} for r, s in scores.items()]


def read_as(files: Labels, scheme: Scheme | None) -> NDArray[np.uint8]:
    """Labels (i, j, k) in values of `brats2021`, from an image in a scheme or from masks.

    Raises:
        InputError: A file cannot be read, has a label that the scheme has not, or the masks are
            not nested.
    """
    if not isinstance(scheme, str):
        return _from_masks(files)
    path = files[WHOLE]
    values = read_labels(path, 255)
    present = {int(value) for value in np.unique(values)}
    known = SCHEMES[scheme].values()
    ignored = {0} | ({CAVITY} if scheme == "brats2024" else set())
    if unknown := present - {*known} - ignored:
        raise InputError(
            f"{path}: label {min(unknown)}, expected {', '.join(map(str, known))} of {scheme}; "
            f"give the label scheme of the file: --labels or --reference-labels "
            f"{', '.join(SCHEMES)}"
        )
    table = np.zeros(256, np.uint8)
    table[[*known]] = NCR, ED, ET
    return table[values]


def _image(files: Labels) -> Path:
    if WHOLE in files:
        return files[WHOLE]
    names = ", ".join(path.name for path in files.values())
    raise InputError(f"{names}: expected one label image, as the result has other regions")


def _from_masks(files: Labels) -> NDArray[np.uint8]:
    first = next(iter(files.values()))
    if missing := [region for region in REGION_LABELS if region not in files]:
        raise InputError(
            f"{first}: no mask of {', '.join(missing)} beside it; expected *seg_WT, *seg_TC and "
            "*seg_ET, .nii.gz or .nii"
        )
    whole, core, enhancing = (read_labels(files[region]) > 0 for region in REGION_LABELS)
    if n := np.count_nonzero(core & ~whole) + np.count_nonzero(enhancing & ~core):
        raise InputError(
            f"{first}: {n} voxels of TC are outside of WT, or of ET outside of TC; expected nested "
            "masks; give the label image"
        )
    labels = np.where(whole, np.uint8(ED), np.uint8(0))
    labels[core], labels[enhancing] = NCR, ET
    return labels


def _one_grid(result: Path, reference: Path) -> Geometry:
    geometry, other = (read_header(path).geometry for path in (reference, result))
    if difference := geometry.difference(other):
        raise GeometryError(
            f"{result}: grid differs from {reference}: {difference}; resample one of them to the "
            "grid of the other without mixing labels (nearest neighbour)"
        )
    return geometry
