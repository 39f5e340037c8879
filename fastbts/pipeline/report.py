"""The report of a prediction: a pure function from what happened to JSON-ready values."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbts.about import DISCLAIMER, __version__
from fastbts.engine.interface import Engine
from fastbts.pipeline.label import Labelled
from fastbts.pipeline.normalize import Prepared
from fastbts.volume import Volume


def build_report(
    engine: Engine,
    volume: Volume,
    prepared: Prepared,
    labelled: Labelled,
    windows: Mapping[str, Any],
    volumes_ml: Mapping[str, float],
    timings_ms: Mapping[str, float],
) -> dict[str, Any]:
    """Collects provenance. Holds no path and nothing from the input's headers but the grid."""
    geometry = volume.geometry
    return {
        "software": {"fastbts": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "engine": {"name": engine.spec.name, **engine.description},
        "input": {
            "modalities": list(volume.modalities),
            "missing": [m for m in engine.spec.modalities if m not in volume.modalities],
            "sha256": dict(zip(volume.modalities, volume.sha256, strict=False)),
            "shape": list(geometry.shape),
            "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
            "orientation": geometry.axis_codes,
            "dtype": str(volume.data.dtype),
        },
        "preprocessing": {
            "brain_voxels": prepared.n_brain,
            "brain_box_zyx": [list(side) for side in prepared.placement.box],
            "tensor_zyx": list(prepared.tensor.shape[1:]),
            "resampled": prepared.placement.resampled,
            "clip_low_high_mean_std": {m: [float(v) for v in row] for m, row in zip(volume.modalities, prepared.stats, strict=True)},
        },
        "windows": dict(windows),
        "postprocessing": {
            "temperature": engine.spec.temperature,
            "thresholds": dict(zip(engine.spec.regions, engine.spec.thresholds, strict=True)),
            "small_parts": labelled.small_parts,
            "small_et": labelled.small_et,
        },
        "volumes_ml": dict(volumes_ml),
        "timings_ms": dict(timings_ms),
        "warnings": list(volume.warnings),
        "notice": DISCLAIMER,
    }  # fmt: skip
