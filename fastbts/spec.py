"""Inputs and outputs of a network."""

from __future__ import annotations

from dataclasses import dataclass

from fastbts.volume import MODALITIES

REGIONS = ("WT", "TC", "ET")
"""Whole tumour, tumour core, enhancing tumour: the outputs; each contains the next."""


@dataclass(frozen=True)
class EngineSpec:
    """Inputs and outputs of a network, and its settings; part of the engine file's manifest."""

    name: str = "engine"
    """Name for reports."""
    modalities: tuple[str, ...] = MODALITIES
    """Input channels in order; a `Segmenter` knows those of `MODALITIES`."""
    regions: tuple[str, ...] = REGIONS
    """Output channels in order; a `Segmenter` needs `REGIONS`."""
    stride: int = 16
    """Spatial sizes must be multiples of this."""
    spacing_mm: float = 1.0
    """Isotropic spacing of the training data; other grids are resampled to it and back."""
    window: tuple[int, int, int] = (144, 176, 144)
    """(D, H, W) the network was trained on, used for sliding windows."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Intensities are clipped at these percentiles of the brain voxels before the z-score."""
    thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Probability from which a voxel belongs to each region."""
    min_et_mm3: float = 0.0
    """A smaller total of enhancing tumour becomes necrotic core; chosen on validation cases."""
    min_part_mm3: float = 0.0
    """Smaller connected parts of the tumour become background; chosen on validation cases."""
    temperature: float = 1.0
    """Calibration: probability = sigmoid(logit / temperature); chosen on validation cases."""
    optional_modalities: tuple[str, ...] = ()
    """Modalities that a case may lack, as training dropped them at random; one must be present."""
