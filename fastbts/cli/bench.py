"""`fastbts bench`: how long a case takes here, from images in memory to labels."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from fastbts.cli.common import (
    AsJson,
    Backend,
    EngineOption,
    Threads,
    app,
    progress_bar,
    reported_errors,
    tell_error,
)

if TYPE_CHECKING:
    from fastbts import Segmenter
    from fastbts.progress import Progress

STAGES = ("normalize", "infer", "label", "total")
Times = dict[str, list[dict[str, float]]]


@app.command()
def bench(
    engine: EngineOption = None,
    backend: Backend = "auto",
    rounds: Annotated[
        int, typer.Option(min=1, help="timed runs of each precision, interleaved")
    ] = 5,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Times a synthetic case on this machine.

    From images in memory to labels, in each precision that runs here.
    """
    with reported_errors(), progress_bar("bench") as progress:
        times = _times(_segmenters(engine, backend, threads), rounds, progress)
    medians = {
        precision: {stage: round(median(run[stage] for run in runs), 1) for stage in STAGES}
        for precision, runs in times.items()
    }
    typer.echo(json.dumps(medians, indent=1) if as_json else _table(medians))


def _segmenters(engine: Path | None, backend: str, n_threads: int) -> dict[str, Segmenter]:
    """A segmenter for each precision of the file on this machine."""
    import fastbts

    options, found = fastbts.SegmenterOptions(mode="one-pass", n_threads=n_threads), {}
    first = fastbts.Segmenter(engine, backend=backend, options=options, warm_up=False)
    found[first.engine.description["precision"]] = first
    if "fp32" not in found:
        try:
            found["fp32"] = fastbts.Segmenter(
                engine, backend=backend, precision="fp32", options=options, warm_up=False
            )
        except fastbts.DeviceError as error:  # a TensorRT plan has one precision
            tell_error(error)
    return found


def _times(segmenters: dict[str, Segmenter], rounds: int, progress: Progress) -> Times:
    from fastbts.build.parity import synthetic_case

    volume = synthetic_case(next(iter(segmenters.values())).spec).volume
    times: Times = {precision: [] for precision in segmenters}
    for n in range(rounds + 1):
        progress(f"round {n} of {rounds}", n / (rounds + 1))
        for precision, segmenter in segmenters.items():
            run = dict(segmenter.predict(volume).timings_ms)
            if n:  # the first round warms up
                times[precision].append(run)
    return times


def _table(medians: dict[str, dict[str, float]]) -> str:
    lines = [f"{'median ms':10}" + "".join(f"{stage:>11}" for stage in STAGES)]
    for precision, row in medians.items():
        lines.append(f"{precision:10}" + "".join(f"{row[stage]:11.1f}" for stage in STAGES))
    return "\n".join(lines)
