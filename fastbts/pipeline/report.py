"""The report of a prediction: a pure function from what happened to JSON-ready values."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER, __version__
from fastbts.engine.interface import Engine
from fastbts.pipeline.confidence import doubts
from fastbts.pipeline.infer import Inferred
from fastbts.pipeline.label import Labelled
from fastbts.pipeline.normalize import Prepared
from fastbts.spec import EngineSpec
from fastbts.volume import Volume


def report(
    engine: Engine,
    spec: EngineSpec,
    volume: Volume,
    prepared: Prepared,
    inferred: Inferred,
    labelled: Labelled,
    stats: NDArray[np.float64],
    confidences: Mapping[str, float],
    timings_ms: Mapping[str, float],
) -> dict[str, Any]:
    """Collects provenance. Contains no path and, of the input's headers, only the grid."""
    return {
        "software": {
            "fastbts": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "engine": {"name": spec.name, **engine.description},
        "input": _input(volume, spec),
        "preprocessing": {
            "brain_voxels": prepared.brain.box.n_brain,
            "brain_box_zyx": [list(side) for side in prepared.placement.box],
            "tensor_zyx": list(prepared.placement.padded),
            "resampled": prepared.placement.resampled,
            "background": {
                modality: asdict(background)
                for modality, background in zip(
                    volume.modalities, prepared.brain.backgrounds, strict=True
                )
            },
            "clip_low_high_mean_std": {
                modality: [float(v) for v in row]
                for modality, row in zip(volume.modalities, stats, strict=True)
            },
        },
        "windows": dict(inferred.windows),
        "postprocessing": {
            "temperatures": dict(zip(spec.regions, spec.temperatures, strict=True)),
            "thresholds": dict(zip(spec.regions, spec.thresholds, strict=True)),
            **labelled.rules,
        },
        "volumes_ml": dict(labelled.volumes_ml),
        "confidence": dict(confidences),
        "timings_ms": dict(timings_ms),
        "warnings": [*volume.warnings, *prepared.brain.warnings, *doubts(confidences)],
        "notice": DISCLAIMER,
    }


def _input(volume: Volume, spec: EngineSpec) -> dict[str, Any]:
    geometry = volume.geometry
    return {
        "modalities": list(volume.modalities),
        "missing": [m for m in spec.modalities if m not in volume.modalities],
        "sha256": dict(zip(volume.modalities, volume.sha256, strict=False)),
        "shape": list(geometry.shape),
        "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
        "orientation": geometry.axis_codes,
        "dtype": str(volume.data.dtype),
    }
