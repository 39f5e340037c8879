"""`fastbts verify`: checks that written results were not changed since; needs no backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from fastbts.about import __version__
from fastbts.cli.checks import Check, print_checks
from fastbts.cli.common import AsJson, EngineOption, app, reported_errors
from fastbts.errors import FastBTSError, InputError

REPORT = "report.json"
MAX_REPORT_BYTES = 1 << 20
UNREADABLE = (FastBTSError, OSError)
BAD_REPORT = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What a report with other content than ours raises."""
SPACING_TOLERANCE = 1e-5  # relative; of a float32 affine, as below
VOLUME_TOLERANCE = 1e-4  # relative: precision of a voxel's volume from a float32 affine


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(help="result folder, or a folder of result folders")],
    engine: EngineOption = None,
    as_json: AsJson = False,
) -> None:
    """Checks that written results were not changed since; exits with 1 if any differs."""
    with reported_errors():
        reports = reports_in(out)
    checks = [check for report in reports for check in verify_result(report, engine)]
    print_checks(checks, as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def reports_in(folder: str | Path) -> list[Path]:
    """The reports of one result folder, or of all result folders in it.

    Raises:
        InputError: There is none.
    """
    folder = Path(folder)
    found = [folder / REPORT] if (folder / REPORT).is_file() else sorted(folder.glob(f"*/{REPORT}"))
    if not found:
        raise InputError(f"{folder}: no {REPORT}; expected a folder that `fastbts predict` wrote")
    return found


def verify_result(report_path: Path, engine: str | Path | None = None) -> Iterator[Check]:
    """Compares a report with the files next to it.

    Args:
        report_path: `report.json` of a result.
        engine: The engine file that should have made it; None for the shipped one.
    Yields:
        One check each of the report, every image's bytes and grid, the volumes, engine and version.
    """
    from fastbts.engine.load import default_engine_path

    try:
        report = _read_report(report_path)
        about = f"{report['engine']['name']}, scheme {report['label_scheme']}"
        yield Check("report", True, about)
        images = [report_path.parent / name for name in report["files_sha256"]]
        for path, digest in zip(images, report["files_sha256"].values(), strict=True):
            yield _tried(path.name, _content, path, digest)
            yield _tried(f"grid of {path.name}", _grid, path, report["input"])
        yield _tried("volumes", _volumes, images, report)
        made_by = Path(default_engine_path() if engine is None else engine)
        yield _tried("engine", _engine, made_by, report["engine"]["sha256"])
        yield _version(report["software"]["fastbts"])
    except (*UNREADABLE, *BAD_REPORT) as error:
        detail = f"{report_path}: cannot be used: {type(error).__name__}: {error}"
        yield Check("report", False, detail)


def _read_report(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise InputError(f"{path.stat().st_size} bytes, at most {MAX_REPORT_BYTES} are read")
    report: dict[str, Any] = json.loads(path.read_bytes())
    for name in report["files_sha256"]:
        if Path(name).name != name:
            raise InputError(f"lists the file {name!r}, which is not in the report's folder")
    return report


def _tried(name: str, check: Callable[..., Check], *args: Any) -> Check:
    """A check; one of a file that cannot be read has failed, and the others go on."""
    try:
        return check(*args)
    except UNREADABLE as error:
        return Check(name, False, str(error))


def _content(path: Path, digest: str) -> Check:
    if not path.is_file():
        return Check(path.name, False, "missing, but the report lists it")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = f"sha256 {got}, the report says {digest}"
    return Check(path.name, got == digest, "unchanged" if got == digest else changed)


def _grid(path: Path, expected: dict[str, Any]) -> Check:
    from fastbts.read.nifti import read_header

    geometry = read_header(path).geometry
    grid = {
        "shape": list(geometry.shape),
        "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
        "orientation": geometry.axis_codes,
    }
    differing = [
        f"{key} {value}, the input had {expected[key]}"
        for key, value in grid.items()
        if value != expected[key] and not (key == "spacing_mm" and _close(value, expected[key]))
    ]
    name, detail = f"grid of {path.name}", "; ".join(differing)
    return Check(name, not differing, detail or "same as the input")


def _close(spacing: Any, expected: Any) -> bool:
    """A qform's spacing is not exactly that of the sform made from it."""
    return np.shape(spacing) == np.shape(expected) and np.allclose(
        spacing, expected, rtol=SPACING_TOLERANCE, atol=0
    )


def _volumes(images: list[Path], report: dict[str, Any]) -> Check:
    """Counts voxels again: the image may be undamaged, but not the one of this report."""
    counted = _counted_ml(images, report["label_scheme"])
    names = list(report["volumes_ml"])
    expected = [float(report["volumes_ml"][name]) for name in names]
    same = np.allclose(counted, expected, rtol=VOLUME_TOLERANCE, atol=0)
    detail = ", ".join(f"{n} {ml:.3f} ml" for n, ml in zip(names, counted, strict=True))
    return Check("volumes", bool(same), detail if same else f"{detail}; the report says {expected}")


def _counted_ml(images: list[Path], scheme: str) -> list[float]:
    from fastbts.labels import REGION_SCHEME, SCHEMES
    from fastbts.read.nifti import read_header
    from fastbts.read.reference import read_labels

    arrays: list[NDArray[Any]] = [read_labels(path) for path in images]
    if scheme != REGION_SCHEME:
        ncr, _, et = SCHEMES[scheme].values()
        arrays = [arrays[0] > 0, np.isin(arrays[0], (ncr, et)), arrays[0] == et]
    voxel_ml = read_header(images[0]).geometry.voxel_ml
    return [int(np.count_nonzero(array)) * voxel_ml for array in arrays]


def _engine(path: Path, digest: str) -> Check:
    from fastbts.engine.file import read_engine_file

    got = read_engine_file(path).sha256
    differs = (
        f"{path.name} has sha256 {got}, the report says {digest}; "
        "give the engine that was used with --engine"
    )
    return Check("engine", got == digest, f"made by {path.name}" if got == digest else differs)


def _version(made_by: str) -> Check:
    """Another version is shown, but is no failure."""
    here = "" if made_by == __version__ else f", this is {__version__}"
    return Check("version", True, f"fastbts {made_by}{here}")
