"""`fastbts predict` and `fastbts demo`: from images to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastbts.cli.cohort import (
    Jobs,
    OutFormat,
    PartOption,
    Ray,
    SkipDone,
    on_cluster,
    planned,
    write_results,
)
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
    Focus,
    Html,
    Labels,
    MinPart,
    Mode,
    Overlap,
    Overwrite,
    Passes,
    Preview,
    TrustedKey,
    check_extras,
    is_image_name,
    new_segmenter,
    result_files,
    write_result,
)
from fastbts.cli.verbosity import say
from fastbts.device.host_cpus import n_cpus
from fastbts.device.host_memory import free_bytes
from fastbts.errors import CaseError, OptionsError
from fastbts.options import SegmenterOptions
from fastbts.volume import MODALITIES
from fastbts.write.kinds import check_no_dicom, check_regions
from fastbts.write.outputs import check_outputs

Image = Annotated[Path | None, typer.Option(help="image file, instead of a case folder")]
OtherImages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE", help="image of another modality, for an engine that takes it"
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="folder for the results; or, of one case, an image (.nii.gz, .nii)"
    ),
]
DemoOut = Annotated[Path, typer.Option("--out", "-o", help="folder for case and results")]
NnunetOrder = Annotated[
    str | None,
    typer.Option(help="modalities of nnU-Net's _0000 to _0003, for example t1,t1ce,t2,flair"),
]
Channels = Annotated[
    str | None,
    typer.Option(
        help="each case is one 4-D file: modalities of its images, for example flair,t1,t1ce,t2"
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(help="for images on different grids: modality to whose grid all are resampled"),
]

BYTES_PER_CASE = 2_000_000_000
"""Memory for a case with a large head in any precision: images, a pass of the network, results."""


@app.command()
def predict(
    cases: Annotated[
        list[Path] | None,
        typer.Argument(
            help="case folders with FLAIR, T1, T1ce and T2, or folders of these, such as a BIDS "
            "dataset; with --channels 4-D files, or folders of these"
        ),
    ] = None,
    out: OutOption = Path("out"),
    flair: Image = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    image: OtherImages = None,
    nnunet_order: NnunetOrder = None,
    channels: Channels = None,
    grid: Grid = None,
    allow_missing: AllowMissing = False,
    labels: Labels = None,
    preview: Preview = False,
    html: Html = False,
    out_format: OutFormat = "folders",
    overwrite: Overwrite = False,
    part: PartOption = None,
    skip_done: SkipDone = False,
    jobs: Jobs = 0,
    ray: Ray = None,
    engine: EngineOption = None,
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
    """Segments registered, skull-stripped cases.

    Writes seg.nii.gz and report.json to OUT; of several cases to OUT/CASE. If OUT is the name of an
    image, writes this image, and the report beside it with the suffix .json.
    """
    orders = {"nnunet_order": _split(nnunet_order), "order": _split(channels)}
    images = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    with reported_errors():
        images |= _named(image or [])
        found = _cases(cases or [], images, engine, **orders)
        plan = planned(
            found,
            out,
            {"labels": labels, "overwrite": overwrite},
            engine,
            trusted_key,
            preview=preview,
            html=html,
            out_format=out_format,
            part=part,
            skip_done=skip_done,
            orders=orders,
        )
        saves = [job.save for job in plan.jobs]
        for save in saves:
            check_no_dicom([save["path"]])
            check_extras([save["path"]])
            check_outputs(**save)
        choice = {"backend": backend, "device": device, "precision": precision}
        options: dict[str, Any] = {
            "mode": mode,
            "overlap": overlap,
            "passes": passes,
            "focus": focus,
            "n_threads": threads,
            "allow_missing": allow_missing,
            "min_part_mm3": min_part_mm3,
        }
        read: dict[str, Any] = {**orders, "grid": grid}
        if ray is not None:
            chosen = SegmenterOptions(**options, parallel=jobs or 1)
            how = {**choice, "engine": engine, "trusted_key": trusted_key, "options": chosen}
            on_cluster(plan, how, read, ray)
            return
        if not plan.jobs:
            write_results(plan, lambda progress: iter(()))
            return
        options["parallel"] = jobs or _parallel(len(saves), threads)
        segmenter = new_segmenter(engine, choice, trusted_key, **options)
        for save in saves:
            check_regions([save["path"]], labels, segmenter.spec.region_labels)
        given = [job.case for job in plan.jobs]
        write_results(plan, lambda shown: segmenter.predict_batch(given, **read, progress=shown))


@app.command()
def demo(
    out: DemoOut = Path("demo"),
    seed: Annotated[int, typer.Option(help="seed of the synthetic case")] = 0,
    engine: EngineOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Segments a synthetic case. Shows where the results are; says nothing about accuracy."""
    from fastbts.phantom import make_case, write_case

    with reported_errors():
        if is_image_name(out):
            raise OptionsError(f"{out}: the demo writes several files; give a folder")
        (files,) = result_files(out, [""], preview=True, html=True)
        save = {**files, "overwrite": overwrite}
        check_outputs(**save)
        segmenter = new_segmenter(engine)
        say("making a synthetic case: four images of 240 x 240 x 155 voxels, and its reference")
        case = make_case(seed)
        write_case(case, out / case.name)
        say(f"segmenting {out / case.name}")
        with progress_bar(case.name) as progress:
            result = segmenter.predict(out / case.name, progress=progress)
        seconds = {stage: ms / 1000 for stage, ms in result.timings_ms.items()}
        say(f"{seconds['total']:.1f} s from files to labels, network {seconds['infer']:.1f} s")
        write_result(result, save, name=case.name)
    say(
        f"look at {files['preview']}: the parts of the tumour in colour over FLAIR and T1ce, in "
        f"three planes; or open {files['html']} in a browser; the case and its reference "
        f"segmentation are in {out / case.name}"
    )


def _parallel(n_cases: int, n_threads: int) -> int:
    """How many cases to compute at once: as many as surely fit into the memory, two at most."""
    free, n_threads = free_bytes(), n_threads or n_cpus()
    fits = free is not None and free >= 2 * BYTES_PER_CASE
    return 2 if fits and min(n_cases, n_threads) > 1 else 1


def _cases(
    paths: list[Path],
    images: dict[str, Path | None],
    engine: Path | None,
    **orders: list[str] | None,
) -> dict[str, Any]:
    """Name of each case -> what `Segmenter.predict` takes; folders of cases are searched."""
    from fastbts.read.find import find_cases, name_cases

    given = {modality: path for modality, path in images.items() if path is not None}
    if bool(paths) == bool(given):
        raise typer.BadParameter(
            "give case folders, or the images by --flair --t1 --t1ce --t2 --image NAME=FILE"
        )
    if given:
        return {"": given}
    modalities = _modalities(engine)
    cases: list[Path] = []
    for path in paths:
        try:
            cases += find_cases(path, **orders, modalities=modalities).values()
        except CaseError:  # as a case of its own, it fails with the same message
            cases.append(path)
    return name_cases(cases)


def _named(images: list[str]) -> dict[str, Path | None]:
    """Modality -> path, from NAME=FILE.

    Raises:
        OptionsError: One has no name or no file.
    """
    named: dict[str, Path | None] = {}
    for image in images:
        name, _, path = image.partition("=")
        if not name or not path or name in named:
            raise OptionsError(
                f"--image {image}: expected NAME=FILE, each name once, for example adc=adc.nii.gz"
            )
        named[name] = Path(path)
    return named


def _modalities(engine: Path | None) -> Sequence[str]:
    """What the files of a case are named by; a wrong path is an error of its own, later."""
    from fastbts.engine.load import read_engine

    if engine is None or not engine.is_file():
        return MODALITIES
    return read_engine(engine).spec.modalities


def _split(names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None
