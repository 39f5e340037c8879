"""Follow-up: how the regions of one result have changed in a later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastbts.about import DISCLAIMER, __version__
from fastbts.errors import InputError, OptionsError
from fastbts.results.saved import SavedResult, read_result
from fastbts.write.ours import COMPARISON

SAME_SETTINGS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "the engine": lambda report: report["engine"].get("sha256") or report["engine"]["name"],
    "the precision": lambda report: report["engine"].get("precision"),
    "the label scheme": lambda report: report["label_scheme"],
    "the version of fastbts": lambda report: report["software"].get("fastbts"),
    "the images": lambda report: ", ".join(map(str, report["input"].get("modalities", ()))),
}
"""What should be equal in both reports, and how it is shown."""
GRID = ("shape", "spacing_mm", "orientation")


@dataclass(frozen=True)
class Change:
    """A region's volume in two results, in ml."""

    before_ml: float
    after_ml: float

    @property
    def ml(self) -> float:
        """The difference, positive for growth."""
        return self.after_ml - self.before_ml

    @property
    def percent(self) -> float | None:
        """The difference in percent of the first volume; None if that was 0."""
        return 100 * self.ml / self.before_ml if self.before_ml else None


@dataclass(frozen=True)
class Comparison:
    """Two results of one patient.

    Attributes:
        before: The first result.
        after: The later one.
        changes: Of each region that both have.
        days: Between the examinations; None if it is not known.
        warnings: Why the change may not be one of the tumour, and what the results warn of.
    """

    before: SavedResult
    after: SavedResult
    changes: Mapping[str, Change]
    days: int | None
    warnings: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """All of it; JSON-ready. Contains no path."""
        return {
            "software": {"fastbts": __version__},
            "kind": COMPARISON,
            "before": _summary(self.before),
            "after": _summary(self.after),
            "days": self.days,
            "regions": {
                region: {
                    **asdict(change),
                    "change_ml": change.ml,
                    "change_percent": change.percent,
                }
                for region, change in self.changes.items()
            },
            "warnings": list(self.warnings),
            "notice": DISCLAIMER,
        }


def compare(
    before: str | Path | SavedResult, after: str | Path | SavedResult, *, days: int | None = None
) -> Comparison:
    """Compares two results of one patient by their reports and masks.

    Args:
        before: The first result: its folder, report or an image of it.
        after: The later one.
        days: Between the examinations; by default from the results' DICOM objects, if they have
            any.
    Raises:
        InputError: One is no result of fastbts or damaged, or they have no region in common.
        OptionsError: The number of days is negative.
    """
    if days is not None and days < 0:
        raise OptionsError(f"days {days}: expected 0 or more; give the earlier result first")
    first, second = (
        one if isinstance(one, SavedResult) else read_result(one) for one in (before, after)
    )
    common = [region for region in first.volumes_ml if region in second.volumes_ml]
    if not common:
        raise InputError(
            f"{second.path}: expected one of the regions {', '.join(first.volumes_ml)}, got "
            f"{', '.join(second.volumes_ml)}; compare results of engines for the same regions"
        )
    changes = {name: Change(first.volumes_ml[name], second.volumes_ml[name]) for name in common}
    if days is None and first.date and second.date:
        days = (second.date - first.date).days
    return Comparison(first, second, changes, days, tuple(_warnings(first, second, days)))


def _warnings(first: SavedResult, second: SavedResult, days: int | None) -> Iterator[str]:
    for what, get in SAME_SETTINGS.items():
        values = get(first.report), get(second.report)
        if values[0] != values[1]:
            yield (
                f"{what} differs: {values[0]} and {values[1]}; part of the change may come from it"
            )
    grids = [{key: one.report["input"].get(key) for key in GRID} for one in (first, second)]
    if grids[0] != grids[1]:
        yield (
            f"the grids differ: {_grid(grids[0])} and {_grid(grids[1])}; volumes can be compared, "
            "positions not"
        )
    if {*first.volumes_ml} != {*second.volumes_ml}:
        yield (
            f"the regions differ: {', '.join(first.volumes_ml)} and "
            f"{', '.join(second.volumes_ml)}; those of both are compared"
        )
    images = [one.report["input"].get("sha256") for one in (first, second)]
    if images[0] and images[0] == images[1]:
        yield "both results are of the same images"
    if days is not None and days < 0:
        yield f"the second examination was {-days} days before the first; is the order right?"
    for when, result in (("before", first), ("after", second)):
        for text in (*result.warnings, *map(str, result.report["warnings"])):
            yield f"{when}: {text}"


def _grid(grid: Mapping[str, Any]) -> str:
    """Such as "240 x 240 x 155 voxels of 1.0 x 1.0 x 1.0 mm, LPS"."""
    shape, spacing = (" x ".join(map(str, grid[key])) for key in ("shape", "spacing_mm"))
    return f"{shape} voxels of {spacing} mm, {grid['orientation']}"


def _summary(result: SavedResult) -> dict[str, Any]:
    engine = result.report["engine"]
    return {
        "engine": {key: engine.get(key) for key in ("name", "sha256", "precision")},
        "fastbts": result.report["software"].get("fastbts"),
        "label_scheme": result.report["label_scheme"],
        "input": {key: result.report["input"].get(key) for key in (*GRID, "modalities", "sha256")},
        "date": result.date.isoformat() if result.date else None,
        "volumes_ml": dict(result.volumes_ml),
        "confidence": dict(result.report["confidence"]),
    }
