"""Which cases of a cohort are to do: by the part, and by what is done already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastbts.cohort.bids import bids_files, prepare_dataset, with_table
from fastbts.cohort.jobs import Job, new_jobs, scheme_of
from fastbts.cohort.part import Part
from fastbts.cohort.summary import Summary
from fastbts.engine.file import EngineFile
from fastbts.errors import OptionsError
from fastbts.labels import check_scheme
from fastbts.spec import EngineSpec
from fastbts.write.outputs import case_files

FORMATS = ("folders", "bids")
"""Layouts of the results: a folder for each case, or a BIDS derivative dataset."""


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        jobs: The cases to segment.
        n_done: How many cases are left out, because they are done.
        part: Which cases of the cohort these are.
        n_cases: Of the cohort.
        summary: The table; None for a single case.
    """

    jobs: Sequence[Job]
    n_done: int
    part: Part
    n_cases: int
    summary: Summary | None

    def __str__(self) -> str:
        n = len(self.jobs) + self.n_done
        of_part = f"{self.part}: {n} of {self.n_cases} cases" if self.part.n_parts > 1 else ""
        done = f"{self.n_done} of {n} done before, {len(self.jobs)} to do" if self.n_done else ""
        names = f" ({', '.join(job.name for job in self.jobs)})" if of_part and self.jobs else ""
        text = "; ".join(filter(None, (of_part, done)))
        return (text or ("1 case" if n == 1 else f"{n} cases")) + names


def layout(
    out_format: str,
    out: Path,
    cases: Mapping[str, Any],
    spec: EngineSpec,
    *,
    labels: str | None = None,
    preview: bool = False,
    html: bool = False,
) -> list[dict[str, Path | None]]:
    """For each case the files of its result; with several cases each has a folder of its own.

    Raises:
        OptionsError: An unknown format or label scheme, or see `bids_files`.
    """
    check_scheme(labels)
    if out_format not in FORMATS:
        raise OptionsError(f"out_format {out_format!r}: expected one of {', '.join(FORMATS)}")
    if out_format == "bids":
        return bids_files(out, cases, scheme_of(labels, spec), preview, html)
    folders = (out / name if len(cases) > 1 else out for name in cases)
    return [case_files(folder, preview, html) for folder in folders]


def make_plan(
    cases: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]],
    save: Mapping[str, Any],
    out: Path,
    engine: EngineFile,
    *,
    out_format: str = "folders",
    part: Part | None = None,
    skip_done: bool = False,
    orders: Mapping[str, Any] | None = None,
) -> Plan:
    """Decides which cases are to do; writes nothing but what a BIDS dataset needs.

    Args:
        cases: Name -> what `Segmenter.predict` takes, of the whole cohort.
        files: For each case the files of its result.
        save: Further arguments of `Segmentation.save`.
        out: The folder.
        engine: Segments the cases.
        out_format: One of `FORMATS`.
        part: Which part of the cases; None for all.
        skip_done: Leaves out cases with a complete result of this engine, see `Job.is_done`.
        orders: `nnunet_order` and `order` of `Segmenter.predict`.
    Raises:
        OutputError: The folder holds a table or dataset of others.
    """
    is_bids, overwrite = out_format == "bids", bool(save.get("overwrite"))
    describe = partial(with_table, spec=engine.spec) if is_bids else lambda job: job
    jobs = new_jobs(cases, files, save, describe)
    part = part or Part(1, 1)
    mine = [jobs[name] for name in (part.of(jobs) if part.n_parts > 1 else jobs)]
    to_do = [job for job in mine if not (skip_done and job.is_done(engine, orders or {}))]
    reports = {name: job.report for name, job in jobs.items()}
    summary = Summary(out, reports, engine, overwrite=overwrite) if len(jobs) > 1 else None
    if is_bids:
        prepare_dataset(out, overwrite=overwrite)
    return Plan(to_do, len(mine) - len(to_do), part, len(jobs), summary)
