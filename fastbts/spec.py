"""Inputs and outputs of a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastbts.labels import REGION_LABELS, is_glioma
from fastbts.volume import MODALITIES

REGIONS = tuple(REGION_LABELS)
"""Whole tumour, tumour core, enhancing tumour: the outputs; each contains the next."""

NAME = re.compile(r"\w[\w .+-]*")
"""Of a modality or a region; parts of files' names."""

MIN_STRIDES = 2
"""Least voxels along each axis at a network's coarsest level. Instance normalisation needs more
than one; and with one, OpenVINO 2026.4 computes convolutions in bf16 and attention wrongly, without
an error."""


@dataclass(frozen=True)
class EngineSpec:
    """Inputs and outputs of a network, and its settings; part of the engine file's manifest."""

    name: str = "engine"
    """Name for reports."""
    modalities: tuple[str, ...] = MODALITIES
    """Input channels in order."""
    regions: tuple[str, ...] = REGIONS
    """Output channels in order; they may overlap."""
    stride: int = 16
    """Spatial sizes must be multiples of this, see `takes`."""
    spacing_mm: float = 1.0
    """Isotropic spacing of the training data; other grids are resampled to it and back."""
    window: tuple[int, int, int] = (144, 176, 144)
    """(D, H, W) the network was trained on; sliding windows have no more voxels."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Intensities are clipped at these percentiles of the brain voxels before the z-score."""
    thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Probability from which a voxel belongs to each region."""
    min_et_mm3: float = 0.0
    """A smaller total of enhancing tumour becomes necrotic core; chosen on validation cases."""
    stray_core_mm3: float = 0.0
    """From this size of its inner voxels on a part of the core that hardly touches enhancing tumour
    becomes oedema, where other core is enclosed by it (`fastbts.ops.stray_core`); 0 for never."""
    min_part_mm3: float = 0.0
    """Smaller connected parts of the tumour become background; chosen on validation cases."""
    temperatures: tuple[float, ...] = ()
    """Calibration of each region: probability = sigmoid(logit / temperature); chosen on validation
    cases. Empty means 1 for each."""
    optional_modalities: tuple[str, ...] = ()
    """Modalities that a case may lack, as training dropped them at random; one must be present."""
    labels: tuple[tuple[int, ...], ...] = ()
    """Labels of each region in label maps, 1 to 255. Empty means those of `REGION_LABELS` for WT,
    TC and ET, and 1, 2, ... for other regions."""

    def __post_init__(self) -> None:
        if not self.temperatures:
            object.__setattr__(self, "temperatures", (1.0,) * len(self.regions))
        if not self.labels:
            of_gliomas = self.regions == REGIONS
            numbers = tuple((n + 1,) for n in range(len(self.regions)))
            labels = tuple(REGION_LABELS.values()) if of_gliomas else numbers
            object.__setattr__(self, "labels", labels)

    @property
    def least_side(self) -> int:
        """Of the images that the network takes."""
        return MIN_STRIDES * self.stride

    def takes(self, size: Sequence[int]) -> bool:
        """Whether the network takes images of this size."""
        return all(n >= self.least_side and n % self.stride == 0 for n in size)

    @property
    def region_labels(self) -> dict[str, tuple[int, ...]]:
        """Region -> its labels."""
        return dict(zip(self.regions, self.labels, strict=True))

    @property
    def is_glioma(self) -> bool:
        """Whether the regions are WT, TC and ET with the labels of `REGION_LABELS`."""
        return is_glioma(self.region_labels)
