"""Segments a cohort: here, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbts.cohort.jobs import Job
from fastbts.cohort.outcome import FAILED, Outcome
from fastbts.cohort.part import Part
from fastbts.cohort.plan import Plan, layout, make_plan
from fastbts.cohort.summary import written_at_the_end
from fastbts.engine.load import read_engine
from fastbts.errors import FastBTSError
from fastbts.options import SegmenterOptions
from fastbts.read.find import name_cases
from fastbts.segmentation import FailedCase, Segmentation
from fastbts.segmenter import Segmenter
from fastbts.write.kinds import check_regions
from fastbts.write.outputs import check_outputs


def predict(
    folders: Iterable[str | Path],
    out: str | Path,
    *,
    engine: str | Path | None = None,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    trusted_key: str | Path | None = None,
    options: SegmenterOptions | None = None,
    part: str | Part | None = None,
    skip_done: bool = False,
    out_format: str = "folders",
    labels: str | None = None,
    preview: bool = False,
    html: bool = False,
    overwrite: bool = False,
    nnunet_order: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    grid: str | None = None,
    address: str | None = None,
) -> list[Outcome]:
    """Segments case folders, and writes each result and a table of all, `summary.csv`.

    A case that cannot be segmented or written is an `Outcome` with the state "failed".

    Args:
        folders: Case folders, for example `fastbts.find_cases(dataset).values()`.
        out: Folder of the results; on a cluster one that all machines have under this name.
        engine: See `Segmenter`; the path of a file.
        backend: See `Segmenter`.
        device: See `Segmenter`.
        precision: See `Segmenter`.
        trusted_key: See `Segmenter`.
        options: See `Segmenter`. On a cluster `parallel` is the number of workers, and `n_threads`
            the CPUs of each; 0 for all CPUs of the smallest machine.
        part: Which part of the cases, "3/8" for the third of eight; None for all.
        skip_done: Leaves out cases with a complete result of this engine.
        out_format: "folders" or "bids".
        labels: See `Segmentation.save`.
        preview: Whether to write a picture of each case.
        html: Whether to write a page of each case, for a browser.
        overwrite: See `Segmentation.save`.
        nnunet_order: See `Segmenter.predict`.
        order: See `Segmenter.predict`.
        grid: See `Segmenter.predict`.
        address: Of a Ray cluster: "auto", "HOST:PORT", or "local" for a new one on this machine.
            None: no cluster.
    Returns:
        What became of each case of this part, without those that were done.
    Raises:
        OptionsError, OutputError, EngineFileError, DeviceError: Before the first case.
    """
    cases, out = name_cases(map(Path, folders)), Path(out)
    read = {"nnunet_order": nnunet_order, "order": order, "grid": grid}
    file = read_engine(engine, trusted_key)
    plan = make_plan(
        cases,
        layout(out_format, out, cases, file.spec, labels=labels, preview=preview, html=html),
        {"labels": labels, "overwrite": overwrite},
        out,
        file,
        out_format=out_format,
        part=Part.parse(part) if isinstance(part, str) else part,
        skip_done=skip_done,
        orders=read,
    )
    for job in plan.jobs:
        check_regions([job.save["path"]], labels, file.spec.region_labels)
        check_outputs(**job.save, regions=(*file.spec.region_labels,))
    how: dict[str, Any] = {
        "engine": engine,
        "backend": backend,
        "device": device,
        "precision": precision,
    }
    how |= {"trusted_key": trusted_key, "options": options or SegmenterOptions()}
    return list(noted(plan, outcomes(plan.jobs, how, read, address)))


def outcomes(
    jobs: Sequence[Job], how: Mapping[str, Any], read: Mapping[str, Any], address: str | None
) -> Iterator[Outcome]:
    """Does the jobs, here or on a cluster, as they end.

    Args:
        jobs: What to do.
        how: Arguments of `Segmenter`.
        read: Arguments of `Segmenter.predict`.
        address: Of a Ray cluster, or None.
    """
    if not jobs:
        return
    if address is not None:
        from fastbts.cohort.cluster import on_cluster

        yield from on_cluster(jobs, how, read, address)
        return
    with Segmenter(**how) as segmenter:
        results = segmenter.predict_batch([job.case for job in jobs], **read)
        for job, result in zip(jobs, results, strict=True):
            yield finish(job, result)


def noted(plan: Plan, results: Iterable[Outcome]) -> Iterator[Outcome]:
    """Passes outcomes on; the table has them."""
    with written_at_the_end(plan.summary):
        for outcome in results:
            if plan.summary:
                plan.summary.add(outcome)
            yield outcome


def save(result: Segmentation, files: Mapping[str, Any], name: str) -> None:
    """Writes a result."""
    result.save(**files, name=name)


def finish(
    job: Job, result: Segmentation | FailedCase, write: Callable[..., object] = save
) -> Outcome:
    """Writes a result; an error is the outcome.

    Args:
        job: Its case and files.
        result: Of the case.
        write: Takes the arguments of `save`.
    """
    try:
        if isinstance(result, FailedCase):
            raise result.error
        write(job.prepared(result), job.save, name=job.name)
    except FastBTSError as error:
        return Outcome.failed(job.name, error)
    return Outcome.of_report(job.name, job.report) or Outcome(
        job.name, FAILED, error=f"{job.report}: was removed or changed by another process"
    )
