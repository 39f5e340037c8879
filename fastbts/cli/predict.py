"""`fastbts predict` and `fastbts demo`: from images to labels."""

from __future__ import annotations

from collections.abc import Sequence
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
from fastbts.errors import CaseError, FastBTSError, OptionsError
from fastbts.labels import REGION_SCHEME, SCHEMES
from fastbts.options import MODES
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem
from fastbts.write.outputs import IMAGE, PREVIEW, REPORT, check_outputs, kept_files, replaced_files

if TYPE_CHECKING:
    from fastbts import FailedCase, Segmentation, Segmenter

Image = Annotated[Path | None, typer.Option(help="image file, instead of a case folder")]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="folder for the results; or, of one case, an image (.nii.gz, .nii)"
    ),
]
DemoOut = Annotated[Path, typer.Option("--out", "-o", help="folder for case and results")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="replace files that fastbts did not write, never the inputs"),
]
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
Passes = Annotated[
    int,
    typer.Option(help="2: average with a pass on the image moved by a voxel; twice as long"),
]
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

# Of files that others write, so that no folder gets such a name.
OTHER_SUFFIXES = (
    *(".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".mnc", ".dcm", ".gz"),
    *(".npy", ".npz", ".h5", ".zip", ".json", ".png"),
)


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
    overwrite: Overwrite = False,
    engine: EngineOption = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    trusted_key: TrustedKey = None,
    threads: Threads = 0,
    mode: Mode = "auto",
    overlap: Overlap = 0.5,
    passes: Passes = 1,
    min_part_mm3: MinPart = None,
) -> None:
    """Segments cases: writes seg.nii.gz and report.json to OUT; of several cases to OUT/<case>.

    If OUT is the name of an image, this image, and the report beside it with the suffix .json.
    """
    orders = {"nnunet_order": _split(nnunet_order), "order": _split(channels)}
    images = {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    with reported_errors():
        given = _cases(cases or [], images, **orders)
        saves = [
            {**files, "labels": labels, "overwrite": overwrite}
            for files in _files(out, list(given), preview)
        ]
        for save in saves:
            check_outputs(**save)
        segmenter = _segmenter(
            engine,
            {"backend": backend, "device": device, "precision": precision},
            trusted_key,
            mode=mode,
            overlap=overlap,
            passes=passes,
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
        for name, save in zip(given, saves, strict=True):
            with progress_bar(name or "case") as progress:
                result = next(results)
            try:
                _finish(result, save)
            except FastBTSError as error:
                if len(saves) == 1:
                    raise
                tell_error(error)
                n_failed += 1
    if n_failed:
        raise typer.Exit(3 if n_failed < len(saves) else 1)


@app.command()
def demo(
    out: DemoOut = Path("demo"),
    seed: Annotated[int, typer.Option(help="seed of the synthetic case")] = 0,
    engine: EngineOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Segments a synthetic case and shows where the results are. Says nothing about accuracy."""
    from fastbts.phantom import make_case, write_case

    with reported_errors():
        if _is_image_name(out):
            raise OptionsError(f"{out}: the demo writes several files; give a folder")
        (files,) = _files(out, [""], preview=True)
        save = {**files, "overwrite": overwrite}
        check_outputs(**save)
        segmenter = _segmenter(engine)
        with progress_bar("synthetic case") as progress:
            progress("making a synthetic case", 0.2)
            case = make_case(seed)
            write_case(case, out / case.name)
        with progress_bar(case.name) as progress:
            result = segmenter.predict(out / case.name, progress=progress)
        _finish(result, save)
    typer.echo(
        f"look at {files['preview']}; the synthetic case and its reference segmentation are in "
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


def _is_image_name(out: Path) -> bool:
    """Whether `-o` names an image to write, not a folder.

    Raises:
        OptionsError: It names a file of another kind.
    """
    name = out.name.lower()
    if out.is_dir() or not name.endswith((*IMAGE_SUFFIXES, *OTHER_SUFFIXES)):
        return False
    image_stem(out)
    return True


def _files(out: Path, names: Sequence[str], preview: bool) -> list[dict[str, Any]]:
    """For each case the files that `Segmentation.save` writes."""
    if not _is_image_name(out):
        folders = [out / name if len(names) > 1 else out for name in names]
        return [
            {
                "path": folder / IMAGE,
                "sidecar": folder / REPORT,
                "preview": folder / PREVIEW if preview else None,
            }
            for folder in folders
        ]
    if len(names) > 1:
        raise OptionsError(f"{out}: names one image for {len(names)} cases; give a folder")
    picture = out.with_name(f"{image_stem(out)}.png") if preview else None
    return [{"path": out, "sidecar": None, "preview": picture}]


def _finish(result: Segmentation | FailedCase, save: dict[str, Any]) -> None:
    """Writes a result and prints a summary, or raises the error of its case."""
    from fastbts import FailedCase

    if isinstance(result, FailedCase):
        raise result.error
    outputs = check_outputs(**save)
    earlier, kept = replaced_files(outputs), kept_files(outputs)
    written = result.save(**save)
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items()))
    typer.echo("wrote " + ", ".join(str(path) for path in written))
    if earlier:
        names = ", ".join(str(path) for path in earlier)
        typer.echo(f"removed {names}, files of an earlier result", err=True)
    if kept:
        names = ", ".join(str(path) for path in kept)
        typer.echo(f"kept {names}: not by fastbts, or changed; no part of this result", err=True)
