"""Works on several cases at once: in their order, with a bound on how many are in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Generic, TypeVar

from fastbts.progress import Progress, cancelled_by

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T, Progress], R]
"""What is done with a case in a thread of its own; it reports its progress."""


def in_order(
    work: Work[T, R], cases: Iterable[T], n_workers: int, progress: Progress | None = None
) -> Generator[R, None, None]:
    """Works on several cases at once; yields the results in the order of the cases.

    The work goes on while the caller uses a result: at most `n_workers` cases are read, worked on
    or waiting then. When the iterator ends early or is closed, work that runs is cancelled.

    Args:
        work: Called in a thread. What it raises is raised for its case, and ends the iteration.
        cases: Taken in the thread of the caller, one more than there are workers ahead of it.
        n_workers: Threads.
        progress: Called in the thread of the caller, for one case after the other.
    """
    stop, begun = Event(), deque["_Work[T, R]"]()
    with ThreadPoolExecutor(n_workers, "fastbts-batch") as pool:
        try:
            for case in cases:
                begun.append(_Work(pool, work, case, stop))
                if len(begun) > n_workers:
                    yield begun.popleft().result(progress)
            while begun:
                yield begun.popleft().result(progress)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the block waits for those that run


class _Work(Generic[T, R]):
    """One case's work in a thread, and what it reports meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, work: Work[T, R], case: T, stop: Event) -> None:
        self._reports = SimpleQueue[tuple[str, float] | None]()
        self._future = pool.submit(self._run, work, case, stop)

    def _run(self, work: Work[T, R], case: T, stop: Event) -> R:
        try:
            with cancelled_by(stop):
                return work(case, lambda stage, done: self._reports.put((stage, done)))
        finally:
            self._reports.put(None)

    def result(self, progress: Progress | None) -> R:
        """Waits for the result, and passes on the reports."""
        for report in iter(self._reports.get, None):
            if progress:
                progress(*report)
        return self._future.result()
