"""`fastbts predict` and `fastbts demo`: from images to labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fastbts
from fastbts.cli.common import EngineOption, Threads, app, progress_bar, reported_errors, tell_error
from fastbts.errors import FastBTSError
from fastbts.labels import check_scheme

if TYPE_CHECKING:
    from fastbts import Segmentation, Segmenter, Volume

Read = Callable[[Callable[[], "Segmenter"]], "Volume"]
"""Reads a case; is given the segmenter, to be waited for if needed."""

Image = Annotated[Path | None, typer.Option(help="image file, instead of a case folder")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="folder for the results")]
Mode = Annotated[str, typer.Option(help="auto, one-pass or sliding")]
Precision = Annotated[
    str, typer.Option(help="auto, fp32, bf16, fp16 or int8, as far as engine and backend have it")
]
MinPart = Annotated[
    float | None,
    typer.Option(
        help="parts of the tumour smaller than this many mm3 become background; 0 for off; default: the engine's"
    ),
]
Labels = Annotated[
    str, typer.Option(help="label scheme: brats2021, brats2023, brats2024 or regions")
]


@app.command()
def predict(
    cases: Annotated[
        list[Path] | None, typer.Argument(help="case folders with FLAIR, T1, T1ce and T2")
    ] = None,
    out: OutOption = Path("out"),
    flair: Image = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    engine: EngineOption = None,
    labels: Labels = "brats2021",
    nnunet_order: Annotated[
        str | None,
        typer.Option(help="modalities of nnU-Net's _0000 to _0003, for example t1,t1ce,t2,flair"),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="segment with the images at hand, where the engine was trained for that",
        ),
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="modality whose grid the others are put on, where each has its own: the finest"
        ),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="also write preview.png, an overlay on three planes")
    ] = False,
    mode: Mode = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    min_part_mm3: MinPart = None,
) -> None:
    """Segments cases: writes seg.nii.gz and report.json into OUT, or into OUT/<case> for several cases."""
    readers = _readers(
        cases or [],
        {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2},
        nnunet_order,
        allow_missing,
        grid,
    )
    folders = {name: out / name if len(readers) > 1 else out for name in readers}
    n_failed = 0
    with ThreadPoolExecutor(1) as pool, reported_errors():
        check_scheme(labels)
        # The engine loads while the first case is read; what is wrong with it is wrong for all cases.
        segmenter = pool.submit(
            _segmenter,
            engine,
            precision,
            mode=mode,
            threads=threads,
            min_part_mm3=min_part_mm3,
            allow_missing=allow_missing,
        )
        for name, read in readers.items():
            try:
                _predict_one(read, segmenter.result, folders[name], labels, preview)
            except FastBTSError as error:
                if len(readers) == 1 or error is segmenter.exception():
                    raise
                tell_error(error)
                n_failed += 1
    if n_failed:
        raise typer.Exit(3 if n_failed < len(readers) else 1)


@app.command()
def demo(
    out: OutOption = Path("demo"),
    seed: Annotated[int, typer.Option(help="seed of the synthetic case")] = 0,
    engine: EngineOption = None,
) -> None:
    """Makes a synthetic case, segments it and shows where the results are. The case says nothing about accuracy."""
    from fastbts.phantom import make_case, write_case

    with ThreadPoolExecutor(1) as pool, reported_errors():
        segmenter = pool.submit(_segmenter, engine)
        with progress_bar("synthetic case") as progress:
            progress("making a synthetic case", 0.2)
            case = make_case(seed)
            write_case(case, out / case.name)
        _predict_one(
            lambda _: fastbts.read_case(out / case.name),
            segmenter.result,
            out,
            "brats2021",
            preview=True,
        )
    typer.echo(
        f"look at {out / 'preview.png'}; the synthetic case (with its truth) is in {out / case.name}"
    )


def _readers(
    folders: list[Path],
    images: dict[str, Path | None],
    nnunet_order: str | None,
    allow_missing: bool,
    grid: str | None,
) -> dict[str, Read]:
    """Name of each case -> how to read it."""
    order = nnunet_order.split(",") if nnunet_order else None
    given = {name: path for name, path in images.items() if path is not None}
    if bool(folders) == bool(given):
        raise typer.BadParameter("give case folders, or the images by --flair --t1 --t1ce --t2")
    if given:
        return {"": lambda segmenter: fastbts.read_files(**given, grid=grid)}
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) != len(names):
        raise typer.BadParameter(
            "two case folders have the same name, so their results would overwrite each other"
        )
    return {
        name: partial(_read_folder, folder, order, allow_missing, grid)
        for name, folder in zip(names, folders, strict=True)
    }


def _read_folder(
    folder: Path,
    order: list[str] | None,
    allow_missing: bool,
    grid: str | None,
    segmenter: Callable[[], Segmenter],
) -> Volume:
    """Waits for the engine only where an image may be missing: which ones, the engine knows."""
    optional = segmenter().spec.optional_modalities if allow_missing else ()
    return fastbts.read_case(folder, nnunet_order=order, optional=optional, grid=grid)


def _segmenter(engine: Path | None, precision: str = "auto", **options: Any) -> Segmenter:
    return fastbts.Segmenter(
        engine, precision=precision, options=fastbts.SegmenterOptions(**options), warm_up=False
    )


def _predict_one(
    read: Read, segmenter: Callable[[], Segmenter], out: Path, labels: str, preview: bool
) -> None:
    from fastbts.files import check_writable
    from fastbts.segmentation import image_files

    target, report, picture = out / "seg.nii.gz", out / "report.json", out / "preview.png"
    outputs = [*image_files(target, labels), report, *([picture] if preview else [])]
    for path in outputs:  # before the work
        check_writable(path)
    with progress_bar(out.name) as progress:
        progress("read", 0.05)
        began = time.perf_counter()
        volume = read(segmenter)
        read_ms = 1000 * (time.perf_counter() - began)
        for path in outputs:
            check_writable(path, volume.names)
        result = segmenter().predict(volume, progress=progress).with_read_time(read_ms)
    written = result.save(target, labels=labels, sidecar=report)
    if preview:
        from fastbts.write.preview import write_preview

        written.append(write_preview(picture, result))
    _tell(result, written)


def _tell(result: Segmentation, written: list[Path]) -> None:
    for warning in result.report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items()))
    typer.echo("wrote " + ", ".join(str(path) for path in written))
