"""Removes what is not brain from the images of a study, unless they are stripped already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.interface import Engine
from fastbts.engine.load import BRAIN_ENGINE, default_engine_path, load_engine
from fastbts.errors import InputError
from fastbts.pipeline.masks import filled
from fastbts.study.strip import brain_mask
from fastbts.volume import MAX_BRAIN_ML, Geometry

ASKED = "it was asked for"
STRIPPED = "all images are stripped"
MIN_BRAIN_ML = 300.0  # of a newborn


@dataclass(frozen=True)
class Stripping:
    """What was removed.

    Attributes:
        brain_ml: Volume of what is not 0 in any image.
        engine: Name and sha256 of the brain engine; empty if none was used.
        skipped: Why nothing was removed; None if it was.
        warnings: What is unusual about the brain.
    """

    brain_ml: float
    engine: Mapping[str, Any]
    skipped: str | None = None
    warnings: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "skipped": self.skipped,
            "brain_ml": round(self.brain_ml, 1),
            "engine": dict(self.engine),
        }


def unstripped(data: NDArray[np.float32], grid: Geometry, why: str) -> Stripping:
    """What is known about images that stay as they are."""
    return Stripping(_ml(data.any(axis=0), grid), {}, why)


def trimmed(
    data: NDArray[np.float32], grid: Geometry, reference: int, n_threads: int = 0
) -> Stripping:
    """Gives images that are stripped already the brain of one of them, in place.

    Resampled from thick slices, an image reaches millimetres beyond its brain. The network takes
    such rims for brain, which changes its input everywhere: most of the images may have them.
    """
    seen = filled(data[reference] != 0, n_threads)
    mask = seen & (np.count_nonzero(data, axis=0) >= len(data) / 2)
    for image in data:
        image *= mask
    return Stripping(_ml(mask, grid), {}, STRIPPED)


def _ml(mask: Any, grid: Geometry) -> float:
    return int(np.count_nonzero(mask)) * grid.voxel_ml


def strip(
    data: NDArray[np.float32],
    grid: Geometry,
    stripped: Sequence[bool],
    engine: Engine | str | Path | None,
    n_threads: int = 0,
    trusted_key: str | Path | None = None,
) -> Stripping:
    """Makes all images 0 outside the brain, in place.

    Args:
        data: Registered images, (M, i, j, k).
        grid: Their grid.
        stripped: Whether each image has no skull; the brain is found in the others.
        engine: Finds the brain; the path of its file, or None for the shipped one.
        n_threads: 0 for all CPUs.
        trusted_key: Public key that must have signed the engine's file, see `load_engine`.
    Raises:
        EngineFileError, OptionsError: The engine cannot be used.
        InputError: No brain was found.
    """
    seen = [image for image, is_bare in zip(data, stripped, strict=True) if not is_bare]
    with brain_engine(engine, n_threads, trusted_key) as loaded:
        mask = np.asfortranarray(brain_mask(seen, grid, loaded, n_threads))  # as the images are
        sha256 = loaded.description.get("sha256", "")
        about = {"name": loaded.spec.name, "sha256": sha256}
    brain_ml = _ml(mask, grid)
    if brain_ml < MIN_BRAIN_ML:
        raise InputError(
            f"study: the brain found has {brain_ml:.0f} ml, expected at least {MIN_BRAIN_ML:.0f}; "
            "check that the series show a whole head, or strip the images with another program "
            "and give them with --no-strip (strip=False)"
        )
    for image in data:
        image *= mask
    return Stripping(brain_ml, about, None, tuple(_doubts(brain_ml)))


@contextmanager
def brain_engine(
    engine: Engine | str | Path | None,
    n_threads: int = 0,
    trusted_key: str | Path | None = None,
) -> Iterator[Engine]:
    """A loaded engine as it is; else one that is loaded, and closed afterwards.

    Raises:
        EngineFileError: See `load_engine`.
    """
    if engine is not None and not isinstance(engine, str | Path):
        yield engine
        return
    path = default_engine_path(BRAIN_ENGINE) if engine is None else Path(engine)
    loaded = load_engine(path, device="cpu", n_threads=n_threads, trusted_key=trusted_key)
    try:
        yield loaded
    finally:
        loaded.close()


def _doubts(brain_ml: float) -> Iterator[str]:
    if brain_ml > MAX_BRAIN_ML:
        yield (
            f"the brain found has {brain_ml:.0f} ml, expected at most {MAX_BRAIN_ML:.0f}: it may "
            "hold more than the brain; look at the result before it is used"
        )
