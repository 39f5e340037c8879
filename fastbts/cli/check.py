"""Commands that look at an installation and at results: `fastbts doctor`, `fastbts verify`, `fastbts bench`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastbts.cli.common import (
    AsJson,
    EngineOption,
    Threads,
    app,
    progress_bar,
    reported_errors,
    tell_error,
)

if TYPE_CHECKING:
    from fastbts import Segmenter
    from fastbts.cli.findings import Finding

STAGES = ("normalize", "infer", "label", "total")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Shows which backends and devices can be used here, and how to get the others."""
    from fastbts.cli.doctor import survey

    _tell(survey(), as_json)


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(help="result folder, or one that holds result folders")],
    engine: EngineOption = None,
    as_json: AsJson = False,
) -> None:
    """Checks written results against their report: bytes, grid, volumes, engine. Exit code 1 if anything differs."""
    from fastbts.cli.verify import reports_in, verify_result

    with reported_errors():
        reports = reports_in(out)
    findings = [finding for report in reports for finding in verify_result(report, engine)]
    _tell(findings, as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    engine: EngineOption = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="timed runs of each precision, one after the other in turn")
    ] = 5,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Times the way from images in memory to labels on a synthetic case, for each precision that runs here."""
    from statistics import median

    from fastbts.phantom import make_case

    with reported_errors(), progress_bar("bench") as progress:
        segmenters = _segmenters(engine, threads)
        volume = make_case(0).volume
        times: dict[str, list[dict[str, float]]] = {precision: [] for precision in segmenters}
        for n in range(rounds + 1):  # the first one warms up
            progress(f"round {n} of {rounds}", n / (rounds + 1))
            for precision, segmenter in segmenters.items():
                times[precision].append(dict(segmenter.predict(volume).timings_ms))
    table = {
        p: {s: round(median(run[s] for run in runs[1:]), 1) for s in STAGES}
        for p, runs in times.items()
    }
    lines = [f"{'median ms':10}" + "".join(f"{stage:>11}" for stage in STAGES)]
    lines += [
        f"{p:10}" + "".join(f"{row[stage]:11.1f}" for stage in STAGES) for p, row in table.items()
    ]
    typer.echo(json.dumps(table, indent=1) if as_json else "\n".join(lines))


def _segmenters(engine: Path | None, threads: int) -> dict[str, Segmenter]:
    """One segmenter for each precision that file and machine have."""
    import fastbts

    options, found = fastbts.SegmenterOptions(mode="one-pass", n_threads=threads), {}
    first = fastbts.Segmenter(engine, options=options, warm_up=False)
    found[first.engine.description["precision"]] = first
    if "fp32" not in found:
        try:
            found["fp32"] = fastbts.Segmenter(
                engine, precision="fp32", options=options, warm_up=False
            )
        except fastbts.DeviceError as error:  # a TensorRT plan has one precision
            tell_error(error)
    return found


def _tell(findings: Iterable[Finding], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    for finding in findings:
        typer.echo(f"{'ok' if finding.ok else '--':3} {finding.name:24} {finding.detail}")
