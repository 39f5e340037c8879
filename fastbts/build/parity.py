"""Build parity: how far an engine is from the same network in float32, on logits, labels, Dice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.build.cases import joined_groups, listed_cases
from fastbts.engine.interface import Engine
from fastbts.errors import CaseError, GeometryError, OptionsError
from fastbts.labels import label_names
from fastbts.metrics import region_dice
from fastbts.options import SegmenterOptions
from fastbts.read.inputs import as_volume
from fastbts.read.reference import find_reference, read_reference_of
from fastbts.segmentation import Segmentation
from fastbts.segmenter import Segmenter
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

MIN_AGREEMENT = {"fp32": 0.9999, "tf32": 0.999, "fp16": 0.999, "bf16": 0.995, "int8": 0.99}
"""Smallest allowed share of equal region labels, for each precision. int8 has 0.994 to 0.9996 when
calibrated on the shapes that it runs on, else 0.76 to 0.987."""
MAX_DICE_LOSS = 0.01
"""Largest allowed loss of mean Dice of a region."""


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A case with its reference segmentation, (i, j, k) uint8, in the labels of the engine, and the
    group of similar cases that it belongs to; "" for none."""

    volume: Volume
    reference: NDArray[np.uint8]
    group: str = ""


class ValidationCases(Sequence[LabelledCase]):
    """The validation cases of a folder with a table, each read when it is taken.

    Raises:
        CaseError: The table or a case cannot be read, or a case has no reference segmentation.
        InputError, GeometryError: A case or its reference cannot be used.
    """

    def __init__(self, data: Path, spec: EngineSpec) -> None:
        self._listed, self._spec = joined_groups(listed_cases(data, "val")), spec

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, index: Any) -> Any:
        listed = self._listed[index]
        path = find_reference(listed.folder)
        if path is None:
            raise CaseError(f"{listed.folder}: expected a reference *seg.nii.gz, got none")
        volume = as_volume(listed.folder, self._spec)
        return replace(_labelled(volume, path, self._spec), group=listed.group)


def labelled_cases(
    folders: Sequence[Path], volumes: Sequence[Volume], spec: EngineSpec
) -> list[LabelledCase]:
    """The cases that have a reference segmentation, or the phantom if none has.

    Args:
        folders: Case folders; a file `*seg.nii.gz` is the reference (3 of BraTS 2023 is read as 4).
        volumes: The same cases, read.
        spec: Of the engine.
    Raises:
        CaseError: A folder has several references.
        InputError, GeometryError: A reference cannot be used.
    """
    paths = map(find_reference, folders)
    found = [_labelled(v, path, spec) for v, path in zip(volumes, paths, strict=True) if path]
    return found or [synthetic_case(spec)]


def synthetic_case(spec: EngineSpec) -> LabelledCase:
    """The phantom: shows whether two engines compute the same, not how accurate they are.

    For other images than glioma's it has the phantom's in turn; for other regions the tumour has
    each of their labels in some slices.
    """
    from fastbts.phantom import make_case

    case = make_case(0)
    given, n_images = case.volume, len(spec.modalities)
    if not set(spec.modalities) <= set(given.modalities):
        images = given.data[np.arange(n_images) % len(given.data)]
        given = Volume(images, given.affine, spec.modalities)
    if spec.is_glioma:
        return LabelledCase(given, case.labels)
    values = np.array([*label_names(spec.region_labels).values()], np.uint8)
    of_slice = values[np.arange(case.labels.shape[2]) % len(values)]
    return LabelledCase(given, np.where(case.labels > 0, of_slice, np.uint8(0)))


def measure_parity(
    exact: Engine,
    built: Engine,
    cases: Sequence[LabelledCase],
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Compares two engines on complete cases, from images to labels.

    Args:
        exact: The network in float32.
        built: The engine to compare with it.
        cases: At least one.
        progress: Called with the fraction done.
    Returns:
        `n_cases`; `max_logit_difference`; `label_agreement`, the share of equal region labels
        inside the brain boxes; `dice_change` per region, built minus exact, mean over the cases;
        and where cases have a group, `groups`: for each its `n_cases`, and of the change of Dice,
        mean over the regions, the mean `dice_change` and that of the `worst_case`.
    """
    options = SegmenterOptions(mode="one-pass")
    a, b = (Segmenter(engine, options=options, warm_up=False) for engine in (exact, built))
    rows, names = [], []
    for n, case in enumerate(cases):
        names.append(case.group)
        rows.append(_compared(a.predict(case.volume), b.predict(case.volume), case.reference))
        progress((n + 1) / len(cases))
    differences, agreements, changes = zip(*rows, strict=True)
    means = {r: float(np.mean([change[r] for change in changes])) for r in exact.spec.regions}
    groups = changes_by_group(names, changes)
    return {
        "n_cases": len(rows),
        "max_logit_difference": max(differences),
        "label_agreement": float(np.mean(agreements)),
        "dice_change": {region: round(mean, 5) for region, mean in means.items()},
    } | ({"groups": groups} if any(groups) else {})


def changes_by_group(
    names: Sequence[str], changes: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Changes of Dice, mean over the regions: per group its mean and its worst case.

    Args:
        names: Group of each case.
        changes: Change of Dice of each case, per region.
    Returns:
        Per group `n_cases`, `dice_change` and `worst_case`.
    """
    means: dict[str, list[float]] = {}
    for name, change in zip(names, changes, strict=True):
        means.setdefault(name, []).append(float(np.mean(list(change.values()))))
    return {
        name: {
            "n_cases": len(mine),
            "dice_change": round(float(np.mean(mine)), 5),
            "worst_case": round(min(mine), 5),
        }
        for name, mine in means.items()
    }


def check_parity(parity: dict[str, Any], precision: str) -> None:
    """Raises OptionsError if parity is out of the bounds for its precision."""
    agreement, change = parity["label_agreement"], min(parity["dice_change"].values())
    if not agreement >= MIN_AGREEMENT[precision] or not change >= -MAX_DICE_LOSS:
        raise OptionsError(
            f"precision {precision!r}: parity with float32 is worse than allowed: label agreement "
            f"{agreement:.5f}, expected at least {MIN_AGREEMENT[precision]}; Dice of a region "
            f"changes by {change:+.4f}, expected at most -{MAX_DICE_LOSS}; calibrate on more "
            "cases, choose a higher precision, or accept it with --accept-parity"
        )


def _compared(
    exact: Segmentation, built: Segmentation, reference: NDArray[np.uint8]
) -> tuple[float, float, dict[str, float]]:
    """Largest logit difference, share of equal region labels, change of Dice."""
    inside = (slice(None), *exact.placement.in_tensor)
    a, b = exact.logits[inside], built.logits[inside]
    before, after = (
        region_dice(result.labels, reference, result.regions) for result in (exact, built)
    )
    change = {region: after[region] - before[region] for region in after}
    return float(np.abs(a - b).max()), float(((a > 0) == (b > 0)).mean()), change


def _labelled(volume: Volume, path: Path, spec: EngineSpec) -> LabelledCase:
    reference, shape = read_reference_of(spec, path), volume.geometry.shape
    if reference.shape != shape:
        raise GeometryError(
            f"{path}: expected the shape of the case's images, {shape}, got {reference.shape}; "
            "export it on their grid"
        )
    return LabelledCase(volume, reference)
