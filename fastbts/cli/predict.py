"""`fastbts predict` and `fastbts demo`: from images to labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    tell_error,
)
from fastbts.errors import CaseError, FastBTSError
from fastbts.labels import REGION_SCHEME, SCHEMES
from fastbts.options import MODES

if TYPE_CHECKING:
    from fastbts import FailedCase, Segmentation, Segmenter

Image = Annotated[Path | None, typer.Option(help="image file, instead of a case folder")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="folder for the results")]
Labels = Annotated[str, typer.Option(help=f"label scheme: {', '.join([*SCHEMES, REGION_SCHEME])}")]
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
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="segment a case that lacks images, with an engine that was trained for it",
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(help="for images on different grids: modality to whose grid all are resampled"),
]
Preview = Annotated[
    bool, typer.Option("--preview", help="also write preview.png, an overlay on three planes")
]
Mode = Annotated[str, typer.Option(help=", ".join(MODES))]
Overlap = Annotated[float, typer.Option(help="minimum overlap of sliding windows, 0 to 0.9")]
TrustedKey = Annotated[
    Path | None, typer.Option(help="public key (PEM) that must have signed the engine file")
]
MinPart = Annotated[
    float | None,
    typer.Option(
        help="parts of the tumour smaller than this many mm3 become background; 0 for off; "
        "default: the engine's"
    ),
]


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
    nnunet_order: NnunetOrder = None,
    channels: Channels = None,
    grid: Grid = None,
    allow_missing: AllowMissing = False,
    labels: Labels = "brats2021",
    preview: Preview = False,
    engine: EngineOption = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    trusted_key: TrustedKey = None,
    threads: Threads = 0,
    mode: Mode = "auto",
    overlap: Overlap = 0.5,
    min_part_mm3: MinPart = None,
) -> None:
    """Segments cases: writes seg.nii.gz and report.json to OUT; of several cases to OUT/<case>."""
    orders = {"nnunet_order": _split(nnunet_order), "order": _split(channels)}
    images = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    with reported_errors():
        given = _cases(cases or [], images, **orders)
        folders = [out / name if len(given) > 1 else out for name in given]
        for folder in folders:
            _check_outputs(folder, labels, preview)
        segmenter = _segmenter(
            engine,
            {"backend": backend, "device": device, "precision": precision},
            trusted_key,
            mode=mode,
            overlap=overlap,
            n_threads=threads,
            allow_missing=allow_missing,
            min_part_mm3=min_part_mm3,
        )
        results = segmenter.predict_batch(
            given.values(),
            nnunet_order=orders["nnunet_order"],
            order=orders["order"],
            grid=grid,
            progress=lambda stage, fraction: progress(stage, fraction),
        )
        n_failed = 0
        for folder in folders:
            with progress_bar(folder.name) as progress:
                result = next(results)
            try:
                _finish(result, folder, labels, preview)
            except FastBTSError as error:
                if len(folders) == 1:
                    raise
                tell_error(error)
                n_failed += 1
    if n_failed:
        raise typer.Exit(3 if n_failed < len(folders) else 1)


@app.command()
def demo(
    out: OutOption = Path("demo"),
    seed: Annotated[int, typer.Option(help="seed of the synthetic case")] = 0,
    engine: EngineOption = None,
) -> None:
    """Segments a synthetic case and shows where the results are. Says nothing about accuracy."""
    from fastbts.phantom import make_case, write_case

    labels = "brats2021"
    with reported_errors():
        _check_outputs(out, labels, preview=True)
        segmenter = _segmenter(engine)
        with progress_bar("synthetic case") as progress:
            progress("making a synthetic case", 0.2)
            case = make_case(seed)
            write_case(case, out / case.name)
        with progress_bar(case.name) as progress:
            result = segmenter.predict(out / case.name, progress=progress)
        _finish(result, out, labels, preview=True)
    typer.echo(
        f"look at {out / 'preview.png'}; the synthetic case and its reference segmentation are in "
        f"{out / case.name}"
    )


def _cases(
    paths: list[Path], images: dict[str, Path | None], **orders: list[str] | None
) -> dict[str, Any]:
    """Name of each case -> what `Segmenter.predict` takes; folders of cases are searched."""
    from fastbts.read.find import find_cases, name_cases

    given = {modality: path for modality, path in images.items() if path is not None}
    if bool(paths) == bool(given):
        raise typer.BadParameter("give case folders, or the images by --flair --t1 --t1ce --t2")
    if given:
        return {"": given}
    cases: list[Path] = []
    for path in paths:
        try:
            cases += find_cases(path, **orders).values()
        except CaseError:  # as a case of its own, it fails with the same message
            cases.append(path)
    return name_cases(cases)


def _split(names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None


def _segmenter(
    engine: Path | None,
    choice: dict[str, str] | None = None,
    trusted_key: Path | None = None,
    **options: Any,
) -> Segmenter:
    """The network is compiled while the first case is read."""
    from fastbts import Segmenter, SegmenterOptions

    return Segmenter(
        engine,
        **(choice or {}),
        trusted_key=trusted_key,
        options=SegmenterOptions(**options),
        warm_up=False,
        background=True,
    )


def _outputs(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "seg.nii.gz", folder / "report.json", folder / "preview.png"


def _check_outputs(folder: Path, labels: str, preview: bool) -> None:
    from fastbts.files import check_writable
    from fastbts.segmentation import check_outputs

    image, report, picture = _outputs(folder)
    check_outputs(image, labels=labels, sidecar=report)
    if preview:
        check_writable(picture)


def _finish(result: Segmentation | FailedCase, folder: Path, labels: str, preview: bool) -> None:
    """Writes a result and prints a summary, or raises the error of its case."""
    from fastbts import FailedCase

    if isinstance(result, FailedCase):
        raise result.error
    image, report, picture = _outputs(folder)
    written = result.save(image, labels=labels, sidecar=report)
    if preview:
        from fastbts.write.preview import write_preview

        written.append(write_preview(picture, result))
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items()))
    typer.echo("wrote " + ", ".join(str(path) for path in written))
