"""What `predict`, `study` and others share: options of result and engine, and the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastbts.cli.verbosity import detail, say
from fastbts.errors import OptionsError, optional_module
from fastbts.labels import REGION_SCHEME, SCHEMES
from fastbts.options import MODES
from fastbts.volume import MODALITIES
from fastbts.write.kinds import Kind, kind_of
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem
from fastbts.write.outputs import case_files, check_outputs, kept_files, replaced_files

if TYPE_CHECKING:
    from fastbts import Segmentation, Segmenter

Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="replace files that fastbts did not write, never the inputs"),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help=f"label scheme: {', '.join([*SCHEMES, REGION_SCHEME])}; default: "
        f"{next(iter(SCHEMES))}, or the labels of an engine for other regions"
    ),
]
Preview = Annotated[
    bool, typer.Option("--preview", help="also write preview.png, an overlay on three planes")
]
Html = Annotated[
    bool,
    typer.Option("--html", help="also write viewer.html: images and labels for any browser"),
]
Mode = Annotated[str, typer.Option(help=", ".join(MODES))]
Overlap = Annotated[float, typer.Option(help="minimum overlap of sliding windows, 0 to 0.9")]
Passes = Annotated[
    int,
    typer.Option(help="2: average with a pass on the image moved by a voxel; twice as long"),
]
Focus = Annotated[
    bool,
    typer.Option(
        "--focus",
        help="run the network only where the engine's finder finds the tumour; faster on CPUs",
    ),
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
Reference = Annotated[
    str, typer.Option(help=f"series that the results are for: {', '.join(MODALITIES)}")
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="segment a case that lacks images, with an engine that was trained for it",
    ),
]
Register = Annotated[
    bool, typer.Option("--register/--no-register", help="no: the images are aligned already")
]
Strip = Annotated[bool, typer.Option("--strip/--no-strip", help="no: the images have no skull")]
Fractional = Annotated[
    bool, typer.Option("--fractional", help="probabilities instead of labels in seg.dcm")
]
BrainEngine = Annotated[
    Path | None,
    typer.Option(help="engine file (.fbts) that finds the brain; default: the shipped one"),
]

# Of files that others write, so that no folder gets such a name.
OTHER_SUFFIXES = (
    *(".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".mnc", ".dcm", ".gz"),
    *(".npy", ".npz", ".h5", ".zip", ".json", ".png", ".html", ".htm", ".csv", ".tsv"),
)


def new_segmenter(
    engine: Path | None,
    choice: dict[str, str] | None = None,
    trusted_key: Path | None = None,
    *,
    background: bool = True,
    **options: Any,
) -> Segmenter:
    """A segmenter; in the background: its network is compiled while the first case is read."""
    from fastbts import Segmenter, SegmenterOptions

    return Segmenter(
        engine,
        **(choice or {}),
        trusted_key=trusted_key,
        options=SegmenterOptions(**options),
        warm_up=not background,
        background=background,
    )


def is_image_name(out: Path) -> bool:
    """Whether `-o` names a file to write, not a folder.

    Raises:
        OptionsError: It names a file of another kind.
    """
    name = out.name.lower()
    if out.is_dir() or not name.endswith((*IMAGE_SUFFIXES, *OTHER_SUFFIXES)):
        return False
    kind_of(out)
    return True


def result_files(
    out: Path, names: Sequence[str], preview: bool, html: bool = False
) -> list[dict[str, Any]]:
    """For each case the files that `Segmentation.save` writes."""
    if not is_image_name(out):
        return [case_files(out / name if len(names) > 1 else out, preview, html) for name in names]
    if len(names) > 1:
        raise OptionsError(f"{out}: names one image for {len(names)} cases; give a folder")
    stem = image_stem(out) if kind_of(out) is Kind.NIFTI else out.name
    picture = out.with_name(f"{stem}.png") if preview else None
    page = out.with_name(f"{stem}.html") if html else None
    return [{"path": out, "sidecar": None, "preview": picture, "html": page}]


def check_extras(paths: Sequence[Path]) -> None:
    """Raises DeviceError, before the work, if a file needs an extra that is not installed."""
    needed = {Kind.NRRD: ("nrrd", "nrrd"), Kind.SEG: ("highdicom", "dicom")}
    needed[Kind.SR] = needed[Kind.SEG]
    for kind in map(kind_of, paths):
        if kind in needed:
            optional_module(*needed[kind])


def write_result(
    result: Segmentation,
    save: Mapping[str, Any],
    fractional: bool = False,
    name: str = "",
) -> None:
    """Writes a result and prints a summary."""
    from fastbts.segmentation import NO_TUMOUR

    outputs = check_outputs(**save, regions=(*result.regions,))
    earlier, kept = replaced_files(outputs), kept_files(outputs)
    written = result.save(**save, fractional=fractional, name=name)
    left_out = [p for p in outputs.paths if kind_of(p) is Kind.SEG and p not in written]
    for warning in (*result.warnings, *([NO_TUMOUR] if left_out else [])):
        typer.echo(f"warning: {warning}", err=True)
    say(", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items()))
    say("wrote " + ", ".join(str(path) for path in written))
    detail(how(result.report))
    if earlier:
        names = ", ".join(str(path) for path in earlier)
        typer.echo(f"removed {names}, files of an earlier result", err=True)
    if kept:
        names = ", ".join(str(path) for path in kept)
        typer.echo(f"kept {names}: not by fastbts, or changed; no part of this result", err=True)


def how(report: Mapping[str, Any]) -> str:
    """Engine, device, windows and times of a result, in one line."""
    engine, windows = report["engine"], report["windows"]
    times = ", ".join(f"{stage} {ms:.0f}" for stage, ms in report["timings_ms"].items())
    return (
        f"{engine['name']} by {engine['backend']} on {engine['device']} in {engine['precision']}; "
        f"{windows['mode']}{_focus(windows.get('focus'))}; ms: {times}"
    )


def _focus(record: Mapping[str, Any] | None) -> str:
    """What focus did, after the mode."""
    if record is None:
        return ""
    whole = record.get("whole_brain")
    return f", whole brain: {whole}" if whole else f", focus on {record['share']:.0%}"
