"""The result of a prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from fastbts.files import OpenFile, hashed, write_json, write_set
from fastbts.ops import PackedLogits
from fastbts.placement import Placement
from fastbts.volume import Volume, to_network_axes
from fastbts.write.dicom_seg import write_dicom_seg
from fastbts.write.dicom_sr import write_dicom_sr
from fastbts.write.kinds import Kind, check_no_dicom, check_regions, kind_of
from fastbts.write.nifti import write_labels
from fastbts.write.nrrd import write_nrrd
from fastbts.write.outputs import (
    PAGES,
    Outputs,
    check_outputs,
    check_single,
    named_paths,
    replaced_files,
)

NO_TUMOUR = (
    "no tumour was found: no DICOM segmentation was written, as DICOM has none without a segment"
)


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Labels of one case on the grid of its input.

    Attributes:
        labels: (i, j, k) uint8 on the input's grid: 1 NCR, 2 ED, 4 ET (scheme `brats2021`), or the
            labels of the engine's other regions. NumPy array, or a `DeviceArray` where the input
            was an array on a device.
        volumes_ml: Volume per region, WT, TC and ET, in millilitres.
        timings_ms: Wall time per stage and in total, in milliseconds.
        report: What ran on what, with which settings and which warnings; JSON-ready.
        volume: The input.
        output: The network's logits on the grid of its tensor: (K, D, H, W) float32 on its device,
            or packed.
        placement: Where that grid is in the volume.
        temperatures: What the logits of each region are divided by for probabilities.
        inputs: Further files that must not be overwritten, besides those that `volume` names.
        dicom_files: The DICOM series whose grid the labels have, in the order of the slices; empty
            where there is none.
        regions: Region -> its labels.
    """

    labels: Any
    volumes_ml: Mapping[str, float]
    timings_ms: Mapping[str, float]
    report: Mapping[str, Any]
    volume: Volume
    output: Array | PackedLogits
    placement: Placement
    temperatures: tuple[float, ...] = (1.0, 1.0, 1.0)
    inputs: tuple[Path, ...] = ()
    dicom_files: tuple[Path, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: dict(schemes.REGION_LABELS)
    )

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
        """Dice to be expected of each region, 0 to 1; see `fastbts.pipeline.confidence`."""
        confidence: Mapping[str, float] = self.report["confidence"]
        return confidence

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The network's output, (K, D, H, W) on the grid of its tensor, in host memory."""
        packed = isinstance(self.output, PackedLogits)
        return self.output.voxels() if packed else on_host(self.output)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each region, (K, i, j, k) float32; 0 outside the brain box."""
        shape = self.volume.geometry.shape
        whole = np.zeros((len(self.logits), *shape[::-1]), np.float32).transpose(0, 3, 2, 1)
        view = to_network_axes(whole, self.volume.geometry)
        logits = self.placement.in_box(self.logits)
        divisors = np.array(self.temperatures, np.float32)[:, None, None, None]
        # exp overflows to inf for logits under -88: the probability is 0 all the same.
        with np.errstate(over="ignore"):
            view[(slice(None), *self.placement.in_volume)] = 1 / (1 + np.exp(-logits / divisors))
        return whole

    def save(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        labels: str | None = None,
        fractional: bool = False,
        sidecar: str | Path | None = None,
        preview: str | Path | None = None,
        html: str | Path | None = None,
        tables: Mapping[Path, str] | None = None,
        name: str = "",
        overwrite: bool = False,
    ) -> list[Path]:
        """Writes the result by the end of the file's name, and a JSON sidecar.

        - `.nii.gz`, `.nii`: the labels in the grid and header of the input.
        - `.seg.nrrd`: the labels with names and colours for 3D Slicer (extra `[nrrd]`).
        - `.dcm`: DICOM-SEG on the series that was segmented (`fastbts study`, extra `[dicom]`).
        - `.sr.dcm`, or `sr.dcm`: DICOM structured report TID 1500 of the volumes. It refers to the
          segments of a DICOM-SEG that is written by the same call.

        The files are a set: all are written, or none. They replace an earlier result of this name
        together with the files that only it had, for example masks of another scheme. If the
        process is killed meanwhile, files may be missing, the sidecar among them, but those that
        exist are of one result.

        Args:
            path: One file, or several of one folder for a result in several forms. Where several
                are given and there is no tumour, the DICOM-SEG is left out, and a warning in the
                report says so: DICOM has none without a segment.
            labels: Of NIfTI files: a label scheme of `fastbts.labels.SCHEMES`, or "regions" for one
                mask per region, in files whose names end in `_WT`, `_TC`, `_ET`. By default
                "brats2021"; of an engine for other regions its own labels, and other schemes are
                refused.
            fractional: Whether the DICOM-SEG holds the probabilities of the regions; else it has
                the labels, which more viewers show.
            sidecar: The report's file; by default `x.json` for `x.nii.gz`, `x.dcm.json` for
                `x.dcm`. `fastbts verify` expects it in the folder of the image.
            preview: A PNG file for a picture of three planes; None for no picture.
            html: A file for the page of `save_html`; None for no page.
            tables: Further text files in the folder of the image -> their content.
            name: Of the case, on picture and page; "" for none.
            overwrite: Replaces files that fastbts did not write, too; never the inputs.

        Returns:
            The files written, images first, the sidecar last.

        Raises:
            OptionsError: Unknown scheme or file suffix; DICOM of a result that is not on a DICOM
                series; a DICOM-SEG alone of a result without tumour; or for regions other than WT,
                TC and ET a scheme of `SCHEMES`, DICOM or `.seg.nrrd`.
            OutputError: A file cannot be written, is one of the inputs, was not written by
                fastbts, or two of the files are one.
            DeviceError: An extra is not installed.
        """
        check_regions(named_paths(path), labels, self.regions)
        named, notes = self._possible(named_paths(path))
        outputs = check_outputs(
            named,
            labels=labels,
            sidecar=sidecar,
            preview=preview,
            html=html,
            tables=tables,
            overwrite=overwrite,
            inputs=(*self.volume.names, *self.inputs),
            regions=(*self.regions,),
        )
        scheme, own = labels or self._default_scheme, {}
        if scheme == schemes.ENGINE_SCHEME:
            own = {"region_labels": {region: [*x] for region, x in self.regions.items()}}
        began = time.perf_counter()
        with write_set(partial(replaced_files, outputs)) as new_file:
            hashes = self._write_pictures(outputs, scheme, fractional, new_file, name)
            write_ms = round(1000 * (time.perf_counter() - began), 3)
            report = {
                **self.report,
                "warnings": [*self.warnings, *notes],
                "label_scheme": scheme,
                **own,
                "files": list(hashes),
                "files_sha256": hashes,
                "timings_ms": {**self.timings_ms, "write": write_ms},
            }
            write_json(outputs.report, report, new_file)
        return outputs.files

    def save_html(self, path: str | Path, *, name: str = "", overwrite: bool = False) -> Path:
        """Writes a page to look at the result in any browser, and nothing else.

        The page is one file and asks no host for anything. It has the images at 8 bits, cut to the
        brain, the labels, in three planes and 3D, the volumes, warnings and what made them.

        Args:
            path: The file, `.html`.
            name: Of the case, for the title; "" for none.
            overwrite: Replaces a file that fastbts did not write, too; never the inputs.
        Returns:
            The file.
        Raises:
            OptionsError: The name ends in another suffix.
            OutputError: The file cannot be written, is one of the inputs, or was not written by
                fastbts.
        """
        from fastbts.write.viewer.write import write_viewer

        inputs: list[str | Path] = [*self.volume.names, *self.inputs]
        target = check_single(path, PAGES, overwrite=overwrite, inputs=inputs)
        write_viewer(target, self, name=name)
        return target

    @property
    def is_glioma(self) -> bool:
        """Whether the regions are WT, TC and ET with the labels of `brats2021`."""
        return schemes.is_glioma(self.regions)

    @property
    def _default_scheme(self) -> str:
        return "brats2021" if self.is_glioma else schemes.ENGINE_SCHEME

    def _possible(self, paths: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
        """The paths without a DICOM-SEG beside others where there is no tumour; and a warning."""
        if not self.dicom_files:
            check_no_dicom(paths)
        others = [path for path in paths if kind_of(path) is not Kind.SEG]
        if not others or len(others) == len(paths) or on_host(self.labels).any():
            return list(paths), []
        return others, [NO_TUMOUR]

    def _write_pictures(
        self, outputs: Outputs, scheme: str, fractional: bool, new_file: OpenFile, name: str
    ) -> dict[str, str]:
        """Writes images, preview, page and tables; returns name -> sha256 of each."""
        hashes: dict[str, str] = {}
        named = {kind: [p for p in outputs.images if kind_of(p) is kind] for kind in Kind}
        if nifti := named[Kind.NIFTI]:
            provenance, images = self._provenance(scheme), self._images(scheme)
            for path, (array, values) in zip(nifti, images, strict=True):
                digest = write_labels(path, array, self.volume, values, provenance, new_file)
                hashes[path.name] = digest
        open_file = hashed(new_file, hashes)
        for path in named[Kind.NRRD]:
            write_nrrd(path, on_host(self.labels), self.volume.geometry, open_file=open_file)
        self._write_dicom(named[Kind.SEG], named[Kind.SR], fractional, open_file)
        if outputs.preview:
            from fastbts.write.preview import write_preview

            picture = write_preview(outputs.preview, self, new_file, name=name)
            hashes[outputs.preview.name] = picture
        if outputs.html:
            from fastbts.write.viewer.write import write_viewer

            hashes[outputs.html.name] = write_viewer(outputs.html, self, new_file, name=name)
        for path, text in outputs.tables.items():
            with open_file(path) as file:
                file.write(text.encode())
        return hashes

    def _write_dicom(
        self, segs: list[Path], reports: list[Path], fractional: bool, open_file: OpenFile
    ) -> None:
        segmentation = None
        labels, engine = on_host(self.labels), self._provenance("")["engine"]
        given = labels, self.volume.geometry, self.dicom_files
        for path in segs:
            probabilities = self.probabilities if fractional else None
            segmentation = write_dicom_seg(
                path, *given, probabilities=probabilities, engine=engine, open_file=open_file
            )
        for path in reports:
            write_dicom_sr(
                path, self.volumes_ml, *given, segmentation, engine=engine, open_file=open_file
            )

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
        if scheme == schemes.ENGINE_SCHEME:
            return [(labels, schemes.label_names(self.regions))]
        if scheme != schemes.REGION_SCHEME:
            return [(schemes.to_scheme(labels, scheme), schemes.SCHEMES[scheme])]
        return [(schemes.region_mask(labels, x), {name: 1}) for name, x in self.regions.items()]


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
