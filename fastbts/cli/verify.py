"""`fastbts verify`: checks that written results were not changed since; needs no backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fastbts.about import __version__
from fastbts.cli.checks import Check, print_checks
from fastbts.cli.common import AsJson, EngineOption, app, reported_errors
from fastbts.errors import FastBTSError
from fastbts.results.saved import are_equal_ml, counted_ml, results_in
from fastbts.write.nifti import IMAGE_SUFFIXES
from fastbts.write.ours import UNREADABLE, digest_of, read_report

NO_REPORT = (
    "no report lists this file: its run was stopped, or the report was removed or damaged; "
    "run fastbts predict again"
)
SPACING_TOLERANCE = 1e-5  # relative; of a float32 affine


@app.command()
def verify(
    out: Annotated[
        Path, typer.Argument(help="result folder, folder of result folders, report, or image")
    ],
    engine: EngineOption = None,
    as_json: AsJson = False,
) -> None:
    """Checks that results were not changed since. Exits with 1 if any was."""
    with reported_errors():
        reports, unlisted = results_in(out)
    results = {report: list(verify_result(report, engine)) for report in reports}
    results |= {path: [Check(path.name, False, NO_REPORT)] for path in unlisted}
    if as_json:
        rows = [
            {"result": str(p), **asdict(check)} for p, found in results.items() for check in found
        ]
        typer.echo(json.dumps(rows, indent=1))
    else:
        _print(results)
    if not all(check.ok for checks in results.values() for check in checks):
        raise typer.Exit(1)


def _print(results: dict[Path, list[Check]]) -> None:
    """A heading for each result if there are several."""
    for path, checks in results.items():
        if len(results) > 1:
            typer.echo(f"{path}:")
        print_checks(checks, as_json=False)


def verify_result(report_path: Path, engine: str | Path | None = None) -> Iterator[Check]:
    """Compares a report with the files next to it.

    Args:
        report_path: The report of a result.
        engine: The engine file that should have made it; None for the shipped one.
    Yields:
        One check each of the report, every file's bytes, every image's grid, the volumes, engine
        and version.
    """
    from fastbts.engine.load import default_engine_path

    try:
        report = read_report(report_path)
        about = f"{report['engine']['name']}, scheme {report['label_scheme']}"
        yield Check("report", True, about)
        files = {report_path.with_name(n): digest for n, digest in report["files_sha256"].items()}
        images = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
        for path, digest in files.items():
            yield _tried(path.name, _content, path, digest)
            if path in images:
                yield _tried(f"grid of {path.name}", _grid, path, report["input"])
        if images or not files:
            yield _tried("volumes", _volumes, images, report)
        made_by = Path(default_engine_path() if engine is None else engine)
        yield _tried("engine", _engine, made_by, report["engine"]["sha256"])
        yield _version(report["software"]["fastbts"])
    except (FastBTSError, *UNREADABLE) as error:
        detail = f"{report_path}: cannot be used: {type(error).__name__}: {error}"
        yield Check("report", False, detail)


def _tried(name: str, check: Callable[..., Check], *args: Any) -> Check:
    """A check; one of a file that cannot be read has failed, and the others go on."""
    try:
        return check(*args)
    except (FastBTSError, OSError) as error:
        return Check(name, False, str(error))


def _content(path: Path, digest: str) -> Check:
    if not path.is_file():
        return Check(path.name, False, "missing, but the report lists it")
    got = digest_of(path)
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
    counted = counted_ml(images, report)
    names = list(report["volumes_ml"])
    expected = [float(report["volumes_ml"][name]) for name in names]
    same = are_equal_ml(counted, expected)
    detail = ", ".join(f"{n} {ml:.3f} ml" for n, ml in zip(names, counted, strict=True))
    return Check("volumes", same, detail if same else f"{detail}; the report says {expected}")


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
