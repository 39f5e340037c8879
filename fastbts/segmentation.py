"""The result of a prediction."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import labels as schemes
from fastbts.errors import FastBTSError, OutputError
from fastbts.files import check_writable, write_json
from fastbts.placement import Placement
from fastbts.volume import Volume, to_network_axes
from fastbts.write.nifti import image_stem, write_labels


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Labels of one case on the grid of its input.

    Attributes:
        labels: (i, j, k) uint8 on the input's grid: 1 NCR, 2 ED, 4 ET (scheme `brats2021`).
        volumes_ml: Volume per region WT, TC, ET, in millilitres.
        timings_ms: Wall time per stage and in total, in milliseconds.
        report: What ran on what, with which settings and which warnings; JSON-ready.
        volume: The input.
    """

    labels: NDArray[np.uint8]
    volumes_ml: Mapping[str, float]
    timings_ms: Mapping[str, float]
    report: Mapping[str, Any]
    volume: Volume
    logits: NDArray[np.float32]
    placement: Placement
    temperature: float = field(default=1.0)

    def __repr__(self) -> str:
        volumes = ", ".join(f"{region} {ml:.1f} ml" for region, ml in self.volumes_ml.items())
        shape = " x ".join(map(str, self.labels.shape))
        n = len(self.warnings)
        warned = f", {n} warning{'s' if n > 1 else ''}" if n else ""
        return f"Segmentation({volumes}: {shape}{warned})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual about the case but not wrong."""
        return tuple(self.report["warnings"])

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each region WT, TC, ET, (3, i, j, k) float32; 0 outside the brain box."""
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
        """Writes the labels as NIfTI in the grid and header of the input, and a JSON sidecar.

        Each file is written completely or not at all.

        Args:
            path: `.nii.gz` or `.nii`.
            labels: A label scheme of `fastbts.labels.SCHEMES`, or "regions" for one mask per
                region, in files whose names end in `_WT`, `_TC`, `_ET`.
            sidecar: The report's file; by default `path` with the suffix `.json`.
        Returns:
            The files written, images first.
        Raises:
            OptionsError: Unknown scheme or file suffix.
            OutputError: A file cannot be written, is one of the inputs, or is both image and
                sidecar.
        """
        *targets, sidecar = check_outputs(path, labels=labels, sidecar=sidecar, volume=self.volume)
        report = {
            **self.report,
            "label_scheme": labels,
            "files": [target.name for target in targets],
        }
        began = time.perf_counter()
        for target, (array, values) in zip(targets, self._images(labels), strict=True):
            write_labels(target, array, self.volume, values, report)
        write_ms = round(1000 * (time.perf_counter() - began), 3)
        hashes = {
            target.name: hashlib.sha256(target.read_bytes()).hexdigest() for target in targets
        }
        timings_ms = {**self.timings_ms, "write": write_ms}
        write_json(sidecar, {**report, "files_sha256": hashes, "timings_ms": timings_ms})
        return [*targets, sidecar]

    def _images(self, scheme: str) -> list[tuple[NDArray[np.uint8], dict[str, int]]]:
        """Per image to write: its voxels, and name of each label -> value."""
        if scheme != schemes.REGION_SCHEME:
            return [(schemes.to_scheme(self.labels, scheme), schemes.SCHEMES[scheme])]
        return [(schemes.region_mask(self.labels, r), {r: 1}) for r in schemes.REGION_LABELS]


@dataclass(frozen=True, eq=False, repr=False)
class FailedCase:
    """A case of a batch that could not be segmented.

    Attributes:
        case: The case as it was given.
        error: Why.
    """

    case: Any
    error: FastBTSError

    def __repr__(self) -> str:
        named = isinstance(self.case, str | PathLike)
        case = str(self.case) if named else f"a {type(self.case).__name__}"
        return f"FailedCase({case}: {type(self.error).__name__}: {self.error})"


def check_outputs(
    path: str | Path,
    *,
    labels: str = "brats2021",
    sidecar: str | Path | None = None,
    volume: Volume | None = None,
) -> list[Path]:
    """The files that `Segmentation.save` writes with these arguments; finds out whether it can.

    Call it before the work; it leaves nothing behind.

    Args:
        path: See `save`.
        labels: See `save`.
        sidecar: See `save`.
        volume: The input, whose files must not be overwritten, if it is known.
    Returns:
        The images, then the sidecar.
    Raises:
        OptionsError, OutputError: See `save`.
    """
    path = Path(path)
    images = _image_files(path, labels)
    default = path.with_name(f"{image_stem(path)}.json")
    report = default if sidecar is None else Path(sidecar)
    if os.path.realpath(report) in map(os.path.realpath, images):
        raise OutputError(
            f"{report}: is both an image and the sidecar, so one would overwrite the other; "
            "expected two files; choose another sidecar"
        )
    for target in (*images, report):
        check_writable(target, volume.names if volume else ())
    return [*images, report]


def _image_files(path: Path, scheme: str) -> list[Path]:
    schemes.check_scheme(scheme)
    stem = image_stem(path)
    if scheme != schemes.REGION_SCHEME:
        return [path]
    suffix = path.name[len(stem) :]
    return [path.with_name(f"{stem}_{region}{suffix}") for region in schemes.REGION_LABELS]
