"""`fastbts study`: from a raw study, DICOM or NIfTI, to labels on one of its series."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastbts.cli.common import (
    Backend,
    Device,
    EngineOption,
    Precision,
    Threads,
    app,
    progress_bar,
    reported_errors,
)
from fastbts.cli.results import (
    AllowMissing,
    BrainEngine,
    Focus,
    Fractional,
    Html,
    Labels,
    MinPart,
    Mode,
    Overlap,
    Overwrite,
    Passes,
    Preview,
    Reference,
    Register,
    Strip,
    TrustedKey,
    check_extras,
    is_image_name,
    new_segmenter,
    result_files,
    write_result,
)
from fastbts.cli.verbosity import say
from fastbts.options import SegmenterOptions
from fastbts.write.dicom_headers import reference_headers
from fastbts.write.kinds import Kind, check_no_dicom, check_regions, kind_of
from fastbts.write.outputs import NRRD, SEG, SR, check_outputs

if TYPE_CHECKING:
    from fastbts import EngineSpec, Segmentation, Study

NO_EXTRA = "highdicom is not installed; install it with: pip install 'fastbts[dicom]'"
READ = 0.6  # share of `read_study` of the whole, for the progress
SeriesOption = Annotated[
    str | None,
    typer.Option(
        metavar="SERIES",
        help="the series to use: its description or a part of it, its four digits, or its UID",
    ),
]


@app.command()
def study(
    paths: Annotated[
        list[Path], typer.Argument(help="folder or files of one study, DICOM or NIfTI")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the results")] = Path("out"),
    flair: SeriesOption = None,
    t1: SeriesOption = None,
    t1ce: SeriesOption = None,
    t2: SeriesOption = None,
    which: Annotated[
        str | None,
        typer.Option("--study", help="which study, by its UID or its four digits, of several"),
    ] = None,
    reference: Reference = "t1ce",
    allow_missing: AllowMissing = False,
    register: Register = True,
    strip: Strip = True,
    fractional: Fractional = False,
    nrrd: Annotated[
        bool, typer.Option("--nrrd", help=f"also write {NRRD} for 3D Slicer (extra [nrrd])")
    ] = False,
    labels: Labels = None,
    preview: Preview = False,
    html: Html = False,
    overwrite: Overwrite = False,
    engine: EngineOption = None,
    brain_engine: BrainEngine = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    trusted_key: TrustedKey = None,
    threads: Threads = 0,
    mode: Mode = "auto",
    overlap: Overlap = SegmenterOptions.overlap,
    passes: Passes = 1,
    focus: Focus = False,
    min_part_mm3: MinPart = None,
) -> None:
    """Segments a raw study, DICOM or NIfTI.

    Its series may be unsorted, not registered, and with skull. Writes seg.nii.gz and report.json to
    OUT, on the grid of the T1ce or another --reference; of a DICOM study also seg.dcm (DICOM-SEG)
    and sr.dcm (structured report TID 1500).
    """
    from fastbts import read_study

    given = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    with reported_errors():
        (files,) = result_files(out, [""], preview, html)
        save = {**files, "labels": labels, "overwrite": overwrite}
        check_outputs(**{**save, "path": _paths(out, save["path"], nrrd, dicom=True)})
        check_extras(_paths(out, save["path"], nrrd, dicom=False))
        segmenter = new_segmenter(
            engine,
            {"backend": backend, "device": device, "precision": precision},
            trusted_key,
            mode=mode,
            overlap=overlap,
            passes=passes,
            focus=focus,
            n_threads=threads,
            allow_missing=allow_missing,
            min_part_mm3=min_part_mm3,
        )
        paths_of_labels = _paths(out, save["path"], nrrd, dicom=False)
        check_regions(paths_of_labels, labels, segmenter.spec.region_labels)
        with progress_bar("study") as progress:
            raw = read_study(
                paths,
                overrides={m: text for m, text in given.items() if text is not None},
                study=which,
                optional=segmenter.spec.optional_modalities,
                reference=reference,
                register=register,
                strip=strip,
                brain_engine=brain_engine,
                trusted_key=trusted_key,
                progress=lambda stage, done: progress(stage, READ * done),
                n_threads=threads,
            )
            without_dicom = why_no_dicom(raw, segmenter.spec)
            save["path"] = _paths(out, save["path"], nrrd, dicom=without_dicom is None)
            check_dicom(raw, save["path"])
            result = raw.segment(
                segmenter, lambda stage, done: progress(stage, READ + (1 - READ) * done)
            )
        print_study(raw)
        began = time.perf_counter()
        write_result(result, save, fractional)
        if raw.series.source == "dicom" and without_dicom:
            typer.echo(f"{SEG} and {SR} were not written: {without_dicom}", err=True)
        print_times(result, 1000 * (time.perf_counter() - began))


def _paths(out: Path, image: Path, nrrd: bool, dicom: bool) -> list[Path]:
    """The files of labels; one alone if `-o` names it."""
    more = [NRRD] * nrrd + [SEG, SR] * dicom
    return [image] if is_image_name(out) else [image, *(out / name for name in more)]


def why_no_dicom(study: Study, spec: EngineSpec) -> str | None:
    """Why no DICOM objects are written beside the labels; None if they are."""
    if study.series.source != "dicom":
        return "the study is not DICOM"
    if not spec.is_glioma:
        return f"they are for WT, TC and ET, and {spec.name} finds {', '.join(spec.regions)}"
    return None if find_spec("highdicom") else NO_EXTRA


def check_dicom(study: Study, paths: list[Path]) -> None:
    """Finds out, before the work, whether DICOM objects can be made of the reference's headers."""
    if study.series.source != "dicom":
        check_no_dicom(paths)
    elif any(kind_of(path) in (Kind.SEG, Kind.SR) for path in paths):
        reference_headers(study.series.files)


def print_study(study: Study) -> None:
    """A table of all series, then what was done with those that are used."""
    rows = study.report["series"]
    width = max(len(row["series"]) for row in rows)
    for row in rows:
        used = row["used_as"] or "-"
        say(f"{used:5}  {row['score']:2}  {row['series']:{width}}  {row['why']}")
    for line in _steps(study):
        say(line)


def _steps(study: Study) -> Iterator[str]:
    """One line for each registration, and one for the brain."""
    register, brain = study.report["register"], study.report["strip"]
    if register["skipped"]:
        yield f"not registered: {register['skipped']}"
    for modality, pair in register["pairs"].items():
        yield (
            f"registered {modality} to {study.reference}: moved {pair['moved_mm']:.1f} mm, turned "
            f"{pair['turned_degrees']:.1f} degrees, quality {pair['quality']:.2f}"
        )
    why = f"not stripped: {brain['skipped']}; " if brain["skipped"] else ""
    yield f"{why}brain {brain['brain_ml']:.0f} ml"


def print_times(result: Segmentation, write_ms: float) -> None:
    """One line with the time of each step."""
    times = {**result.timings_ms, "write": write_ms}
    total = times.pop("total") + write_ms
    steps = (f"{step} {ms / 1000:.1f} s" for step, ms in {**times, "total": total}.items())
    say(", ".join(steps))
