"""The result of a prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import labels as schemes
from fastbts.device.arrays import on_host
from fastbts.device.interface import Array
from fastbts.errors import FastBTSError
from fastbts.files import OpenFile, write_json, write_set
from fastbts.placement import Placement
from fastbts.volume import Volume, to_network_axes
from fastbts.write.nifti import write_labels
from fastbts.write.outputs import Outputs, check_outputs, replaced_files
from fastbts.write.preview import write_preview


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Labels of one case on the grid of its input.

    Attributes:
        labels: (i, j, k) uint8 on the input's grid: 1 NCR, 2 ED, 4 ET (scheme `brats2021`). NumPy
            array, or a `DeviceArray` where the input was an array on a device.
        volumes_ml: Volume per region WT, TC, ET, in millilitres.
        timings_ms: Wall time per stage and in total, in milliseconds.
        report: What ran on what, with which settings and which warnings; JSON-ready.
        volume: The input.
        output: The network's logits, (3, D, H, W) float32 on the grid of its tensor, on its device.
        placement: Where that grid is in the volume.
        temperature: What logits are divided by for probabilities.
    """

    labels: Any
    volumes_ml: Mapping[str, float]
    timings_ms: Mapping[str, float]
    report: Mapping[str, Any]
    volume: Volume
    output: Array
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

    @property
    def confidence(self) -> Mapping[str, float]:
        """Dice to be expected of WT, TC and ET, 0 to 1; see `fastbts.pipeline.confidence`."""
        confidence: Mapping[str, float] = self.report["confidence"]
        return confidence

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The network's output, (3, D, H, W) on the grid of its tensor, in host memory."""
        return on_host(self.output)

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
        self,
        path: str | Path,
        *,
        labels: str = "brats2021",
        sidecar: str | Path | None = None,
        preview: str | Path | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Writes the labels as NIfTI in the grid and header of the input, and a JSON sidecar.

        The files are a set: all are written, or none. They replace an earlier result of this name
        together with the files that only it had, for example masks of another scheme. If the
        process is killed meanwhile, files may be missing, the sidecar among them, but those that
        exist are of one result.

        Args:
            path: `.nii.gz` or `.nii`.
            labels: A label scheme of `fastbts.labels.SCHEMES`, or "regions" for one mask per
                region, in files whose names end in `_WT`, `_TC`, `_ET`.
            sidecar: The report's file; by default `path` with the suffix `.json`. `fastbts verify`
                expects it in the folder of the image.
            preview: A PNG file for a picture of three planes; None for no picture.
            overwrite: Replaces files that fastbts did not write, too; never the inputs.
        Returns:
            The files written, images first, the sidecar last.
        Raises:
            OptionsError: Unknown scheme or file suffix.
            OutputError: A file cannot be written, is one of the inputs, was not written by
                fastbts, or two of the files are one.
        """
        outputs = check_outputs(
            path,
            labels=labels,
            sidecar=sidecar,
            preview=preview,
            overwrite=overwrite,
            volume=self.volume,
        )
        began = time.perf_counter()
        with write_set(partial(replaced_files, outputs)) as new_file:
            hashes = self._write_pictures(outputs, labels, new_file)
            write_ms = round(1000 * (time.perf_counter() - began), 3)
            report = {
                **self.report,
                "label_scheme": labels,
                "files": list(hashes),
                "files_sha256": hashes,
                "timings_ms": {**self.timings_ms, "write": write_ms},
            }
            write_json(outputs.report, report, new_file)
        return outputs.files

    def _write_pictures(self, outputs: Outputs, scheme: str, new_file: OpenFile) -> dict[str, str]:
        """Writes images and preview; returns name -> sha256 of each."""
        hashes, provenance = {}, self._provenance(scheme)
        for path, (array, values) in zip(outputs.images, self._images(scheme), strict=True):
            digest = write_labels(path, array, self.volume, values, provenance, new_file)
            hashes[path.name] = digest
        if outputs.preview:
            hashes[outputs.preview.name] = write_preview(outputs.preview, self, new_file)
        return hashes

    def _provenance(self, scheme: str) -> dict[str, Any]:
        """What goes into the image; no times, so that equal labels of a case give equal files."""
        engine, given = self.report["engine"], self.report["input"]
        return {
            "software": {"fastbts": self.report["software"]["fastbts"]},
            "engine": {key: engine[key] for key in ("name", "sha256") if key in engine},
            "input": {key: given[key] for key in ("modalities", "sha256")},
            "label_scheme": scheme,
            "notice": self.report["notice"],
        }

    def _images(self, scheme: str) -> list[tuple[NDArray[np.uint8], dict[str, int]]]:
        """Per image to write: its voxels, and name of each label -> value."""
        labels = on_host(self.labels)
        if scheme != schemes.REGION_SCHEME:
            return [(schemes.to_scheme(labels, scheme), schemes.SCHEMES[scheme])]
        return [(schemes.region_mask(labels, r), {r: 1}) for r in schemes.REGION_LABELS]


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
