"""The result of a prediction."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import labels as schemes
from fastbts.placement import Placement
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
    placement: Placement = field(repr=False)
    temperature: float = field(default=1.0, repr=False)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each region WT, TC, ET, (3, i, j, k) float32; 0 outside the brain box. Computed on first use."""
        shape = self.volume.geometry.shape
        whole = np.zeros((len(self.logits), *shape[::-1]), np.float32).transpose(0, 3, 2, 1)
        view = to_network_axes(whole, self.volume.geometry)
        # exp overflows to inf for logits under -88: the probability is 0 all the same.
        with np.errstate(over="ignore"):
            view[(slice(None), *self.placement.in_volume)] = 1 / (
                1 + np.exp(-self.placement.in_box(self.logits) / self.temperature)
            )
        return whole

    def save(
        self, path: str | Path, *, labels: str = "brats2021", sidecar: str | Path | None = None
    ) -> list[Path]:
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
        from fastbts.files import check_writable, write_json
        from fastbts.write.nifti import write_labels

        sidecar = self.sidecar_of(path) if sidecar is None else Path(sidecar)
        images = self._images(Path(path), labels)
        for target in [*(target for target, _, _ in images), sidecar]:
            check_writable(target, self.volume.names)
        report = {
            **self.report,
            "label_scheme": labels,
            "files": [target.name for target, _, _ in images],
        }
        began = time.perf_counter()
        for target, array, values in images:
            write_labels(target, array, self.volume, values, report)
        write_ms = round(1000 * (time.perf_counter() - began), 3)
        hashes = {
            target.name: hashlib.sha256(target.read_bytes()).hexdigest() for target, _, _ in images
        }
        write_json(
            sidecar,
            {
                **report,
                "files_sha256": hashes,
                "timings_ms": {**self.timings_ms, "write": write_ms},
            },
        )
        return [*(target for target, _, _ in images), sidecar]

    def with_read_time(self, ms: float) -> Segmentation:
        """Adds the time that reading the case took, in milliseconds, to timings and report."""
        timings_ms = {
            **self.timings_ms,
            "read": round(ms, 3),
            "total": round(self.timings_ms["total"] + ms, 3),
        }
        return replace(
            self, timings_ms=timings_ms, report={**self.report, "timings_ms": timings_ms}
        )

    @staticmethod
    def sidecar_of(path: str | Path) -> Path:
        """Where `save` puts the report by default: `seg.nii.gz` -> `seg.json`."""
        from fastbts.write.nifti import image_stem

        return Path(path).with_name(f"{image_stem(path)}.json")

    def _images(
        self, path: Path, scheme: str
    ) -> list[tuple[Path, NDArray[np.uint8], dict[str, int]]]:
        """Files to write: path, voxels, name of each label -> value."""
        targets = image_files(path, scheme)
        if scheme != schemes.REGION_SCHEME:
            return [(targets[0], schemes.to_scheme(self.labels, scheme), schemes.SCHEMES[scheme])]
        regions = schemes.REGION_LABELS
        return [
            (target, schemes.region_mask(self.labels, r), {r: 1})
            for target, r in zip(targets, regions, strict=True)
        ]


def image_files(path: Path, scheme: str) -> list[Path]:
    """The image files that `Segmentation.save` writes for a label scheme."""
    from fastbts.write.nifti import image_stem

    schemes.check_scheme(scheme)
    stem = image_stem(path)
    if scheme != schemes.REGION_SCHEME:
        return [path]
    return [
        path.with_name(f"{stem}_{region}{path.name[len(stem) :]}")
        for region in schemes.REGION_LABELS
    ]
