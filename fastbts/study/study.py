"""The whole way from a raw study to labels on one of its series.

read -> choose -> register -> strip -> segment -> back; `Segmentation.save` writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.interface import Engine
from fastbts.errors import CaseError, InputError, memory_errors
from fastbts.options import check_threads
from fastbts.progress import Clock, Progress
from fastbts.read.nifti import read_header
from fastbts.read.quality import inspected
from fastbts.segmentation import Segmentation
from fastbts.segmenter import Segmenter
from fastbts.study import align, stripping
from fastbts.study.align import Alignment
from fastbts.study.already import is_stripped, share_a_grid
from fastbts.study.back import on_reference
from fastbts.study.choose import Choice, choose
from fastbts.study.coverage import coverage
from fastbts.study.grid import working_grid
from fastbts.study.read import read_series
from fastbts.study.read_dicom import Found
from fastbts.study.series import Series
from fastbts.volume import MODALITIES, Geometry, Volume
from fastbts.write.ours import is_ours
from fastbts.write.preview import SHOWN

REFERENCE = "t1ce"
CHOOSE, REGISTER, STRIP = 0.2, 0.3, 0.8
"""Share of the work before steps of `read_study`, for the progress."""
BACK = 0.9
"""The same of `Study.segment`."""


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """A study that is ready to be segmented.

    Attributes:
        choice: Which series is which modality, and why.
        reference: Modality of the series that the results are for.
        alignment: How the others were moved to it.
        volume: The images on the working grid, registered and stripped, for any `Segmenter`.
        timings_ms: Wall time of each step and in total, in milliseconds.
        report: What was done and why; JSON-ready, without the patient's name.
        inputs: The files of the study, which no result overwrites.
    """

    choice: Choice
    reference: str
    alignment: Alignment
    volume: Volume
    timings_ms: Mapping[str, float]
    report: Mapping[str, Any]
    inputs: tuple[Path, ...]

    def __repr__(self) -> str:
        chosen = ", ".join(f"{m} {series.label}" for m, series in self.choice.series.items())
        return f"Study({chosen}; reference {self.reference})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual about the study but not wrong."""
        return tuple(self.volume.warnings)

    @property
    def series(self) -> Series:
        """The reference series."""
        return self.choice.series[self.reference]

    def segment(
        self, segmenter: Segmenter | None = None, progress: Progress | None = None
    ) -> Segmentation:
        """Segments the study.

        Args:
            segmenter: Finds the tumour; None for one with the shipped engine.
            progress: Called with the stage and the fraction done.

        Returns:
            The result on the grid of the reference series. `timings_ms` has the steps of the whole
            way, `report["study"]` what was done in each, and `save` also writes DICOM if the study
            is DICOM.

        Raises:
            CaseError, InputError, DeviceError: See `Segmenter.predict`.
        """
        if segmenter is None:
            with Segmenter(warm_up=False) as shipped:
                return self.segment(shipped, progress)
        clock = Clock(progress)
        with clock("segment", 0.0):
            result = segmenter.predict(self.volume, progress=_share(progress, BACK))
        with clock("back", BACK), memory_errors("the labels on the reference series"):
            n_threads = segmenter.options.n_threads
            result = on_reference(result, self._images(n_threads), segmenter.spec, n_threads)
        timings = _added(self.timings_ms, clock.finish())
        return replace(
            result,
            timings_ms=timings,
            report=self._report(result, timings),
            inputs=self.inputs,
            dicom_files=self.series.files if self.series.source == "dicom" else (),
        )

    def _images(self, n_threads: int) -> Volume:
        """The images that a picture shows, with their skulls, on the grid of the reference."""
        series = {
            modality: one
            for modality, one in self.choice.series.items()
            if modality in (*SHOWN, self.reference)
        }
        grid, first = self.series.geometry, self.series.files[0]
        header = read_header(first).nifti if self.series.source == "nifti" else None
        names = [one.label for one in series.values()]
        data = self.alignment.on_grid(series, grid, n_threads)
        return Volume(data, grid.affine, list(series), names, header=header)

    def _report(self, result: Segmentation, timings_ms: Mapping[str, float]) -> dict[str, Any]:
        """That of the prediction, with the grid of the reference, and what was done before."""
        grid = self.series.geometry
        given = {
            **result.report["input"],
            "shape": list(grid.shape),
            "spacing_mm": [round(mm, 6) for mm in grid.spacing_mm],
            "orientation": grid.axis_codes,
        }
        study = {**self.report, "segment_ms": result.report["timings_ms"]}
        return {**result.report, "input": given, "timings_ms": timings_ms, "study": study}


def read_study(
    paths: str | Path | Iterable[str | Path],
    *,
    overrides: Mapping[str, str] | None = None,
    study: str | None = None,
    optional: Sequence[str] = (),
    reference: str = REFERENCE,
    register: bool = True,
    strip: bool = True,
    brain_engine: Engine | str | Path | None = None,
    trusted_key: str | Path | None = None,
    progress: Progress | None = None,
    n_threads: int = 0,
) -> Study:
    """Reads a raw study: chooses its series, registers them and removes the skull.

    Args:
        paths: A folder or files, DICOM (extra `[dicom]`) or NIfTI, in any order. The images need
            not be registered or stripped, and may be on any grids.
        overrides: Modality -> series to use for it, see `fastbts.study.choose.choose`.
        study: Which study, where there are several, see `fastbts.study.read_dicom.read_dicom`.
        optional: Modalities that may be missing, for an engine that was trained for it.
        reference: Modality of the series that the others are moved to and the results are for.
        register: False for images that are aligned already.
        strip: False for images that are stripped already.
        brain_engine: Finds the brain: an engine, the path of its file, or None for the shipped one.
        trusted_key: Public key (PEM) that must have signed the file of the brain engine.
        progress: Called with the step and the fraction done.
        n_threads: CPU threads; 0 for all.

    Returns:
        The study, for `Study.segment`.

    Raises:
        CaseError: Series are missing or ambiguous; several patients or studies.
        InputError: A file cannot be read; no brain was found.
        GeometryError: Series cannot be registered.
        DeviceError: The extra `[dicom]` is not installed; there is too little memory.
        EngineFileError: The brain engine cannot be used.
    """
    check_threads(n_threads)
    clock = Clock(progress)
    with memory_errors("the study cannot be read"):
        with clock("read", 0.0):
            found = read_series(paths, study)
        with clock("choose", CHOOSE):
            choice = choose(found, overrides, optional=optional)
            fixed = _reference(choice, reference, optional)
        with clock("read", CHOOSE):
            sha256 = [_sha256(one) for one in choice.series.values()]
            stripped = [is_stripped(one) for one in choice.series.values()]
        alignment = _aligned(choice.series, fixed, register, all(stripped), clock, n_threads)
        with clock("register", STRIP):
            grid = working_grid(choice.series[fixed].geometry)
            data = alignment.on_grid(choice.series, grid, n_threads)
        with clock("strip", STRIP):
            if not strip:
                brain = stripping.unstripped(data, grid, stripping.ASKED)
            elif not all(stripped):
                brain = stripping.strip(data, grid, stripped, brain_engine, n_threads, trusted_key)
            elif alignment.pairs:
                of = list(choice.series).index(fixed)
                brain = stripping.trimmed(data, grid, of, n_threads)
            else:
                brain = stripping.unstripped(data, grid, stripping.STRIPPED)
            seen = coverage(data.any(axis=0), grid, choice.series, alignment)
            warnings = [*brain.warnings, *seen.warnings(choice.series, fixed)]
            volume = inspected(_volume(data, grid, choice, warnings, sha256))
    report = {
        "reference": {"modality": fixed, "series": choice.series[fixed].label},
        "series": choice.report(),
        "register": alignment.report(),
        "strip": brain.report(),
        "coverage": seen.report(),
        "working_grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
        "n_other_files": found.n_others,
    }
    return Study(choice, fixed, alignment, volume, clock.finish(), report, _inputs(found))


def _volume(
    data: NDArray[np.float32],
    grid: Geometry,
    choice: Choice,
    warnings: Sequence[str],
    sha256: Sequence[str],
) -> Volume:
    series = choice.series.values()
    of_series = [f"{one.label}: {text}" for one in series for text in one.warnings]
    return Volume(
        data,
        grid.affine,
        list(choice.series),
        [one.label for one in series],
        [*choice.warnings, *of_series, *warnings],
        sha256,
    )


def _reference(choice: Choice, reference: str, optional: Sequence[str]) -> str:
    """The modality of the reference; where it may be missing and is, the first one that is there.

    Raises:
        CaseError: It is unknown, or was not chosen.
    """
    if reference in choice.series:
        return reference
    if reference in optional:
        return next(m for m in (REFERENCE, "t1", *MODALITIES) if m in choice.series)
    raise CaseError(
        f"reference {reference!r}: expected one of {', '.join(choice.series)}; choose one of them "
        "(--reference, reference=)"
    )


def _aligned(
    series: Mapping[str, Series],
    reference: str,
    register: bool,
    stripped: bool,
    clock: Clock,
    n_threads: int,
) -> Alignment:
    if not register:
        return align.unregistered(series)
    if stripped and share_a_grid(series):
        return Alignment({}, align.PREPARED)
    step = (STRIP - REGISTER) / len(series)
    return align.align(
        series,
        reference,
        lambda modality: clock("register", REGISTER + step * list(series).index(modality)),
        n_threads,
    )


def _sha256(series: Series) -> str:
    """Of the files of a series, one after the other; for one file that of the file."""
    digest = hashlib.sha256()
    try:
        for path in series.files:
            digest.update(path.read_bytes())
    except OSError as error:  # its text has the path, which may name the patient
        raise InputError(
            f"series {series.label}: a file cannot be read: {error.strerror}; check the folder"
        ) from error
    return digest.hexdigest()


def _inputs(found: Found) -> tuple[Path, ...]:
    """The files of all series; not our own results, which may be beside them."""
    return tuple(
        path
        for series in found.series
        for path in series.files
        if series.source == "dicom" or not is_ours(path)
    )


def _share(progress: Progress | None, end: float) -> Progress | None:
    """Progress of a part that ends at a fraction of the whole."""
    if progress is None:
        return None
    return lambda stage, fraction: progress(stage, fraction * end)


def _added(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Times of both, with one total at the end."""
    total = round(first["total"] + second["total"], 3)
    parts = {**first, **second}
    del parts["total"]
    return {**parts, "total": total}
