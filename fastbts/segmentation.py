"""The result of a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import labels as schemes
from fastbts.preprocess import Prepared
from fastbts.volume import Volume, to_network_axes


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of one case on the grid of its input.

    Attributes:
        labels: (i, j, k) uint8 on the input's grid: 1 NCR, 2 ED, 4 ET (scheme `brats2021`).
        volumes_ml: Volume per region WT, TC, ET, in millilitres.
        timings_ms: Wall time per stage, in milliseconds.
        report: What ran on what, with which settings and which warnings; JSON-ready.
        volume: The input.
    """

    labels: NDArray[np.uint8]
    volumes_ml: Mapping[str, float]
    timings_ms: Mapping[str, float]
    report: Mapping[str, Any]
    volume: Volume = field(repr=False)
    logits: NDArray[np.float32] = field(repr=False)
    prepared: Prepared = field(repr=False)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each region WT, TC, ET, (3, i, j, k) float32; 0 outside the brain box. Computed on first use."""
        shape = self.volume.geometry.shape
        whole = np.zeros((len(self.logits), *shape[::-1]), np.float32).transpose(0, 3, 2, 1)
        restored, offset = self.prepared.restore(self.logits)
        inner = tuple(slice(o, o + b - a) for o, (a, b) in zip(offset, self.prepared.box, strict=True))
        view = to_network_axes(whole, self.volume.geometry)
        # exp overflows to inf for logits under -88: the probability is 0 all the same.
        with np.errstate(over="ignore"):
            view[(slice(None), *(slice(*side) for side in self.prepared.box))] = 1 / (
                1 + np.exp(-restored[(slice(None), *inner)])
            )
        return whole

    def save(self, path: str | Path, *, labels: str = "brats2021", sidecar: str | Path | None = None) -> list[Path]:
        """Writes the labels as NIfTI in the grid and header of the input, and a JSON sidecar; each file whole or not at all.

        Args:
            path: `.nii.gz` or `.nii`.
            labels: Label scheme: "brats2021", "brats2023", "brats2024", or "regions" for one mask per region, in files whose
                names end in `_WT`, `_TC`, `_ET`.
            sidecar: The report's file; by default `path` with the suffix `.json`.
        Returns:
            The files written, images first.
        Raises:
            OptionsError: Unknown scheme or file suffix.
            OutputError: A file cannot be written.
        """
        from fastbts.output import image_stem, write_json, write_labels

        path, stem = Path(path), image_stem(path)
        written = []
        for target, array, values in self._images(path, stem, labels):
            write_labels(target, array, self.volume, values, self.report)
            written.append(target)
        sidecar = path.with_name(f"{stem}.json") if sidecar is None else Path(sidecar)
        write_json(sidecar, {**self.report, "label_scheme": labels, "files": [p.name for p in written]})
        return [*written, sidecar]

    def _images(self, path: Path, stem: str, scheme: str) -> list[tuple[Path, NDArray[np.uint8], dict[str, int]]]:
        if scheme != schemes.REGION_SCHEME:
            return [(path, schemes.to_scheme(self.labels, scheme), schemes.SCHEMES[scheme])]
        suffix = path.name[len(stem) :]
        return [
            (path.with_name(f"{stem}_{region}{suffix}"), schemes.region_mask(self.labels, region), {region: 1})
            for region in self.volumes_ml
        ]
