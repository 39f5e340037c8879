"""Brings the chosen series to the reference: one matrix each, then one grid for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError
from fastbts.study.grid import on_grid
from fastbts.study.register import Registration, register
from fastbts.study.series import Series
from fastbts.volume import Geometry

ASKED = "it was asked for"
PREPARED = "all images are stripped and on one grid"


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the series of a study were moved to the reference.

    Attributes:
        pairs: Modality -> its registration; without the reference, and empty where it was skipped.
        skipped: Why nothing was registered; None if it was.
    """

    pairs: Mapping[str, Registration]
    skipped: str | None = None

    def matrix(self, modality: str) -> NDArray[np.float64]:
        """Position in the image of a modality -> in the reference, RAS+ in mm, (4, 4)."""
        return self.pairs[modality].matrix if modality in self.pairs else np.eye(4)

    def on_grid(
        self, series: Mapping[str, Series], target: Geometry, n_threads: int = 0
    ) -> NDArray[np.float32]:
        """Images on one grid in the patient space of the reference, (M, i, j, k)."""
        data = np.empty((len(series), *target.shape[::-1]), np.float32).transpose(0, 3, 2, 1)
        for image, (modality, one) in zip(data, series.items(), strict=True):
            image[:] = on_grid(one.voxels, one.geometry, self.matrix(modality), target, n_threads)
        return data

    def report(self) -> dict[str, Any]:
        """Figures of each pair; JSON-ready."""
        pairs = {modality: _figures(pair) for modality, pair in self.pairs.items()}
        return {"skipped": self.skipped, "pairs": pairs}


def align(
    series: Mapping[str, Series],
    reference: str,
    step: Callable[[str], Any],
    n_threads: int = 0,
) -> Alignment:
    """Registers all series to the reference.

    Args:
        series: By modality.
        reference: Modality of the one that stays where it is.
        step: Gives a context for the registration of a modality, for times and progress.
        n_threads: 0 for all CPUs.
    Raises:
        InputError, GeometryError: See `fastbts.study.register.register`.
    """
    pairs = {}
    for modality, moving in series.items():
        if modality != reference:
            with step(modality):
                pairs[modality] = register(moving, series[reference], n_threads)
    return Alignment(pairs)


def unregistered(series: Mapping[str, Series]) -> Alignment:
    """The alignment of images of which the user says that they are aligned.

    Raises:
        GeometryError: They are not in one patient space.
    """
    frames = {s.facts.frame_of_reference_uid for s in series.values()} - {""}
    if len(frames) > 1:
        raise GeometryError(
            f"study: the chosen series have {len(frames)} frames of reference, so their positions "
            "cannot be compared; let them be registered (without --no-register, register=True)"
        )
    return Alignment({}, ASKED)


def _figures(pair: Registration) -> dict[str, Any]:
    figures = {key: value for key, value in asdict(pair).items() if key != "matrix"}
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return {**rounded, "matrix": [[round(float(v), 6) for v in row] for row in pair.matrix]}
