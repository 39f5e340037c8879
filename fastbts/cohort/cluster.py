"""A cohort on a Ray cluster: Ray Data with one engine per worker. Extra `[ray]`.

A worker is an actor that loads the engine once, segments a case, writes its result to the shared
file system, and sends back what became of it: a line of text, no image.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastbts.cohort.jobs import Job
from fastbts.cohort.outcome import Outcome
from fastbts.errors import FastBTSError, OptionsError, optional_module
from fastbts.options import SegmenterOptions
from fastbts.segmentation import FailedCase
from fastbts.segmenter import Segmenter

LOCAL = "local"
"""Address of a new cluster on this machine."""
MAX_RESTARTS = 2
"""Of a worker that died; a case that kills workers must not run for ever."""


class Worker:
    """Loads the engine once, and then does one job after the other.

    Args:
        jobs: All of the cohort.
        how: Arguments of `Segmenter`.
        read: Arguments of `Segmenter.predict`.
    """

    def __init__(
        self, jobs: Sequence[Job], how: Mapping[str, Any], read: Mapping[str, Any]
    ) -> None:
        self._jobs, self._read = jobs, read
        self._segmenter = Segmenter(**how)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The outcome of the job with the number `row["job"]`, as text."""
        from fastbts.cohort.run import finish

        job = self._jobs[int(row["job"])]
        try:
            result: Any = self._segmenter.predict(job.case, **self._read)
        except FastBTSError as error:
            result = FailedCase(job.case, error)
        return {"outcome": finish(job, result).to_json()}


def on_cluster(
    jobs: Sequence[Job], how: Mapping[str, Any], read: Mapping[str, Any], address: str
) -> Iterator[Outcome]:
    """Does jobs on a cluster; yields their outcomes as they end.

    Args:
        jobs: What to do. Relative paths are those of this process.
        how: Arguments of `Segmenter`; `options.parallel` is the number of workers, and `n_threads`
            the CPUs of each, see `cohort.predict`.
        read: Arguments of `Segmenter.predict`.
        address: See `cohort.predict`.
    Raises:
        DeviceError: Ray is not installed.
        OptionsError: There is no cluster at the address.
    """
    ray = optional_module("ray", "ray")
    data = optional_module("ray.data", "ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        done = _dataset(data, jobs, how, read, _shares(ray.nodes(), how["options"]))
        yield from _with_the_lost(jobs, done.iter_rows())
    finally:
        if started:
            ray.shutdown()


def _dataset(
    data: Any,
    jobs: Sequence[Job],
    how: Mapping[str, Any],
    read: Mapping[str, Any],
    shares: tuple[int, int],
) -> Any:
    """The outcomes as a dataset of Ray, which works when it is read."""
    n_workers, n_cpus = shares
    how = {**how, "options": replace(how["options"], n_threads=n_cpus, parallel=1)}
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a case whose worker died is reported by `_with_the_lost`
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    numbers = [{"job": i} for i in range(len(jobs))]
    rows = data.from_items(numbers, override_num_blocks=len(jobs))  # so one case at a time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the two bounds below are deprecated; 2.64 removes them
        return rows.map(
            Worker,
            fn_constructor_args=([_absolute(job) for job in jobs], _absolute_engine(how), read),
            compute=data.ActorPoolStrategy(size=min(n_workers, len(jobs))),
            num_cpus=n_cpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )


def _with_the_lost(jobs: Sequence[Job], rows: Any) -> Iterator[Outcome]:
    """The outcomes, and then those of jobs whose worker died."""
    names = {job.name for job in jobs}
    for row in rows:
        outcome = Outcome.from_json(row["outcome"])
        names.discard(outcome.case)
        yield outcome
    for job in jobs:
        if job.name in names:
            error = DiedError(
                f"{job.name}: its worker died {MAX_RESTARTS + 1} times; the memory may not "
                "suffice: give fewer workers (--jobs), and look at the log of Ray"
            )
            yield Outcome.failed(job.name, error)


class DiedError(FastBTSError, RuntimeError):
    """A worker ended without an outcome."""


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionsError(
            f"--ray {address}: no Ray cluster: {error}; start one with `ray start --head`, or give "
            f"{LOCAL} for one on this machine"
        ) from error


def _shares(nodes: Sequence[Mapping[str, Any]], options: SegmenterOptions) -> tuple[int, int]:
    """Number of workers, and CPUs of each: one worker per machine unless the options say more."""
    alive = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    cpus = [n for n in alive if n] or [1]
    n_workers = options.parallel if options.parallel > 1 else len(cpus)
    per_machine = -(-n_workers // len(cpus))
    return n_workers, options.n_threads or max(1, min(cpus) // per_machine)


def _absolute(job: Job) -> Job:
    """The job for a process with another working directory."""

    def full(value: Any) -> Any:
        return value.absolute() if isinstance(value, Path) else value

    case = {k: full(v) for k, v in job.case.items()} if isinstance(job.case, dict) else job.case
    return replace(
        job,
        case=full(case),
        save={key: full(value) for key, value in job.save.items()},
        tables={full(path): text for path, text in job.tables.items()},
    )


def _absolute_engine(how: Mapping[str, Any]) -> dict[str, Any]:
    files = ("engine", "trusted_key")
    return {k: Path(v).absolute() if k in files and v is not None else v for k, v in how.items()}
