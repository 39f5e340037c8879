"""What `fastbts predict` does with several cases: parts, restarts, the table, a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastbts.cli.common import overall_bar
from fastbts.cli.results import is_image_name, result_files, write_result
from fastbts.cli.verbosity import is_quiet, say
from fastbts.cohort.jobs import new_jobs
from fastbts.cohort.outcome import FAILED, Outcome
from fastbts.cohort.part import Part
from fastbts.cohort.plan import FORMATS, Plan, layout, make_plan
from fastbts.cohort.run import finish, noted, outcomes
from fastbts.cohort.summary import written_at_the_end
from fastbts.errors import OptionsError
from fastbts.progress import Progress
from fastbts.segmentation import FailedCase

OutFormat = Annotated[
    str,
    typer.Option(
        help=f"{' or '.join(FORMATS)}: a folder for each case, or a BIDS derivative dataset"
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        metavar="K/N", help="only the K-th of N parts of the cases, sorted by name: 3/8 of eight"
    ),
]
SkipDone = Annotated[
    bool,
    typer.Option(
        "--skip-done", help="leave out cases whose complete result of the same engine is there"
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        min=0,
        help="cases that the CPU computes at once, each on its share of the threads; 0: two of "
        "several where there are two threads and 4 GB of free memory; with --ray: workers",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="compute on a Ray cluster: auto, HOST:PORT, or local for a new one here",
    ),
]


def planned(
    cases: Mapping[str, Any],
    out: Path,
    save: Mapping[str, Any],
    engine: Path | None,
    trusted_key: Path | None,
    *,
    preview: bool,
    html: bool,
    out_format: str,
    part: str | None,
    skip_done: bool,
    orders: Mapping[str, Any],
) -> Plan:
    """Which cases are to do, and their files; says so where some are left out."""
    chosen = Part.parse(part) if part else Part(1, 1)
    is_plain = out_format == "folders" and not (part or skip_done)
    if is_image_name(out) or (len(cases) == 1 and is_plain):
        if not is_plain:
            raise OptionsError(f"{out}: names an image; expected a folder with these options")
        jobs = new_jobs(cases, result_files(out, list(cases), preview, html), save)
        return Plan([*jobs.values()], 0, chosen, len(jobs), None)
    from fastbts.engine.load import read_engine

    file = read_engine(engine, trusted_key)
    shown = {"preview": preview, "html": html}
    files = layout(out_format, out, cases, file.spec, labels=save["labels"], **shown)
    kind: dict[str, Any] = {"out_format": out_format, "part": chosen, "skip_done": skip_done}
    kind["orders"] = orders
    plan = make_plan(cases, files, save, out, file, **kind)
    if (part or skip_done) and not is_quiet():
        typer.echo(f"{plan}", err=True)
    return plan


def write_results(plan: Plan, predict: Callable[[Progress], Iterator[Any]]) -> None:
    """Writes each result as it comes, and exits with 3 or 1 if some or all cases failed.

    Args:
        plan: The jobs.
        predict: Takes what shows the progress of a case; gives the results in the jobs' order.
    """
    failures: list[Outcome] = []
    i, n = 0, len(plan.jobs)

    def progress(stage: str, fraction: float) -> None:
        bar(f"{plan.jobs[i].name or 'case'} ({i + 1}/{n}): {stage}", i + fraction)

    with overall_bar(n) as bar, written_at_the_end(plan.summary):
        results = predict(progress)
        for i, job in enumerate(plan.jobs):  # noqa: B007, `progress` reads it
            result = next(results)
            if plan.n_cases == 1 and isinstance(result, FailedCase):
                raise result.error  # its type is the exit code
            outcome = finish(job, result, write_result)
            if outcome.state == FAILED:
                typer.echo(f"error: {outcome.error}", err=True)
                failures.append(outcome)
            if plan.summary:
                plan.summary.add(outcome)
    end(plan, failures)


def on_cluster(plan: Plan, how: Mapping[str, Any], read: Mapping[str, Any], address: str) -> None:
    """Does the jobs on a Ray cluster; prints a line for each case."""
    failures = []
    with overall_bar(len(plan.jobs)) as bar:
        for n, outcome in enumerate(noted(plan, outcomes(plan.jobs, how, read, address)), 1):
            bar(f"{n} of {len(plan.jobs)} cases", n)
            if outcome.state == FAILED:
                typer.echo(f"error: {outcome.case}: {outcome.error}", err=True)
                failures.append(outcome)
            else:
                volumes = (f"{region} {ml:.1f} ml" for region, ml in outcome.volumes_ml.items())
                say(f"{outcome.case}: {', '.join(volumes)}")
    end(plan, failures)


def end(plan: Plan, failures: Sequence[Outcome]) -> None:
    """Says where the table is, and lists what failed."""
    if plan.summary:
        say(f"wrote {plan.summary.path}")
    if not failures:
        return
    n = len(plan.jobs) + plan.n_done
    if n > 1:
        typer.echo(f"{len(failures)} of {n} cases failed:", err=True)
        for outcome in failures:
            typer.echo(f"  {outcome.case}: {outcome.error}", err=True)
    raise typer.Exit(3 if len(failures) < n else 1)
