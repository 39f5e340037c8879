"""A cohort on a Ray cluster: Ray Data with one engine per worker. Extra `[ray]`.

A worker is an actor that loads the engine once, segments a case, writes its result to the shared
file system, and sends back what became of it: a line of text, no image.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
SILENT_S = 1800.0
"""Without a finished case in this time the cluster is taken for stuck. Ray may wait for ever after
a worker died: https://github.com/ray-project/ray/issues/62746."""


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
        self._segmenter: Segmenter | None = None
        self._fault: Exception | None = None
        try:
            self._segmenter = Segmenter(**how)
        except Exception as error:  # Ray would only say that the worker died
            self._fault = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The outcome of the job with the number `row["job"]`, as text."""
        job = self._jobs[int(row["job"])]
        try:
            outcome = self._outcome(job)
        except Exception as error:  # as above; so its type is named
            outcome = Outcome.failed(job.name, RuntimeError(f"{type(error).__name__}: {error}"))
        return {"outcome": outcome.to_json()}

    def _outcome(self, job: Job) -> Outcome:
        from fastbts.cohort.run import finish

        try:
            if self._segmenter is None:
                raise self._fault or RuntimeError("no segmenter")
            result: Any = self._segmenter.predict(job.case, **self._read)
        except FastBTSError as error:
            result = FailedCase(job.case, error)
        return finish(job, result)


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
        OptionsError: There is no cluster at the address, or it has too few CPUs.
        StuckError: No case was finished for half an hour.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    ray = optional_module("ray", "ray")
    data = optional_module("ray.data", "ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        done = _dataset(data, jobs, how, read, _shares(ray.nodes(), how["options"]))
        yield from _with_the_lost(jobs, done.iter_rows(), SILENT_S)
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


def _with_the_lost(jobs: Sequence[Job], rows: Iterable[Any], silent_s: float) -> Iterator[Outcome]:
    """The outcomes, and then those of jobs whose worker died."""
    left = {job.name: job for job in jobs}
    try:
        for row in _watched(rows, silent_s):
            outcome = Outcome.from_json(row["outcome"])
            left.pop(outcome.case, None)
            yield outcome
    except TimeoutError:
        raise StuckError(
            f"no case was finished on the Ray cluster for {silent_s:g} s; not done: "
            f"{', '.join(left)}; look at the log of Ray, and run the command again with --skip-done"
        ) from None
    for name in left:
        error = DiedError(
            f"{name}: its worker died {MAX_RESTARTS + 1} times; the memory may not "
            "suffice: give fewer workers (--jobs), and look at the log of Ray"
        )
        yield Outcome.failed(name, error)


def _watched(items: Iterable[Any], silent_s: float) -> Iterator[Any]:
    """The items, from a thread, as waiting for Ray has no end; TimeoutError if none comes."""
    found: queue.Queue[tuple[str, Any]] = queue.Queue()

    def read() -> None:
        try:
            for item in items:
                found.put(("item", item))
            found.put(("end", None))
        except BaseException as error:
            found.put(("error", error))

    threading.Thread(target=read, name="fastbts-ray", daemon=True).start()
    while True:
        try:
            kind, value = found.get(timeout=silent_s)
        except queue.Empty:
            raise TimeoutError from None
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value


class DiedError(FastBTSError, RuntimeError):
    """A worker ended without an outcome."""


class StuckError(FastBTSError, TimeoutError):
    """The cluster does no more cases."""


def _connect(ray: Any, address: str) -> None:
    if address.startswith("ray://"):
        raise OptionsError(
            f"--ray {address}: Ray Data does not work over Ray's client protocol; run this on a "
            "machine of the cluster, and give auto or HOST:PORT"
        )
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # of many types
        raise OptionsError(
            f"--ray {address}: no Ray cluster: {error}; start one with `ray start --head`, give "
            f"{LOCAL} for one on this machine, or set RAY_AUTH_MODE=token if the cluster needs "
            "Ray's token"
        ) from error


def _shares(nodes: Sequence[Mapping[str, Any]], options: SegmenterOptions) -> tuple[int, int]:
    """Number of workers, and CPUs of each: one worker per machine unless the options say more.

    Raises:
        OptionsError: The machines that run have too few CPUs; Ray would wait for others.
    """
    alive = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    known = [n for n in alive if n]
    cpus = known or [1]  # none yet: a cluster that starts machines when there is work
    n_workers = options.parallel if options.parallel > 1 else len(cpus)
    per_machine = -(-n_workers // len(cpus))
    n_cpus = options.n_threads or max(1, min(cpus) // per_machine)
    if known and sum(n // n_cpus for n in cpus) < n_workers:
        raise OptionsError(
            f"{n_workers} workers of {n_cpus} CPUs: more than the cluster has, whose machines have "
            f"{', '.join(map(str, cpus))} CPUs; give fewer --threads or --jobs"
        )
    return n_workers, n_cpus


def _absolute(job: Job) -> Job:
    """The job for a process with another working directory."""

    def full(value: Any) -> Any:
        if isinstance(value, dict):
            return {full(key): full(item) for key, item in value.items()}
        return value.absolute() if isinstance(value, Path) else value

    return replace(job, case=full(job.case), save=full(job.save))


def _absolute_engine(how: Mapping[str, Any]) -> dict[str, Any]:
    files = ("engine", "trusted_key")
    return {k: Path(v).absolute() if k in files and v is not None else v for k, v in how.items()}
