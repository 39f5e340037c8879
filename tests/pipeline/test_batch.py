"""`in_order`: order, bound, progress and end of work that runs in threads."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from fastbts.pipeline.batch import in_order
from fastbts.progress import Cancelled, Clock, Progress, check_cancelled

LIMIT_S = 30


class Result:
    """A result that a weak reference can follow."""


def test_results_keep_the_order_of_the_cases() -> None:
    """The first case ends last."""
    others = threading.Event()

    def work(case: int, report: Progress) -> int:
        if case == 0:
            assert others.wait(LIMIT_S)
        elif case == 1:
            others.set()
        return 10 * case

    assert list(in_order(work, range(5), 2)) == [0, 10, 20, 30, 40]
    assert list(in_order(work, [], 2)) == []


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_few_cases_are_in_memory(n_workers: int) -> None:
    """However long the caller takes; and all workers work while it does."""
    taken, alive, begun = itertools.count(), weakref.WeakSet[Result](), threading.Semaphore(0)

    def cases() -> Iterator[int]:
        for _ in range(12):
            yield next(taken)

    def work(case: int, report: Progress) -> Result:
        begun.release()
        alive.add(result := Result())
        return result

    results = enumerate(in_order(work, cases(), n_workers), 1)
    for n_done, _result in results:
        for _ in range(n_workers + 1 if n_done == 1 else n_done < 12 - n_workers):
            assert begun.acquire(timeout=LIMIT_S)
        time.sleep(0.01)  # a worker that took too much would get there
        assert len(alive) <= n_workers + 1
    assert n_done == 12


def test_progress_runs_through_one_case_after_the_other() -> None:
    caller, seen = threading.get_ident(), []

    def work(case: str, report: Progress) -> str:
        for step in (0.0, 0.5, 1.0):
            report(case, step)
        return case

    def progress(stage: str, done: float) -> None:
        assert threading.get_ident() == caller
        seen.append((stage, done))

    assert list(in_order(work, "abc", 2, progress)) == ["a", "b", "c"]
    assert seen == [(case, step) for case in "abc" for step in (0.0, 0.5, 1.0)]


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    begun = []

    def work(case: int, report: Progress) -> int:
        begun.append(case)
        if case == 1:
            raise ValueError("case 1")
        return case

    results = in_order(work, itertools.count(), 2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="case 1"):
        next(results)
    assert list(results) == []
    assert len(begun) <= 4


@pytest.mark.parametrize("end", ["close", "error of the caller", "Ctrl-C"])
def test_work_that_runs_is_cancelled(end: str) -> None:
    """It ends at its next look, and no more begins."""
    running, ended = threading.Semaphore(0), []

    def work(case: int, report: Progress) -> int:
        if case == 0:
            return 0
        running.release()
        try:
            began = time.monotonic()
            while time.monotonic() - began < LIMIT_S:
                check_cancelled()
                time.sleep(0.001)
        except Cancelled:
            ended.append(case)
            raise
        return case

    def interrupted(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    def report_first(case: int, report: Progress) -> int:
        if case == 1:
            report("begun", 0.0)
        return work(case, report)

    results = in_order(report_first, itertools.count(), 2, interrupted)
    assert next(results) == 0
    for _ in range(2):
        assert running.acquire(timeout=LIMIT_S)
    if end == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            next(results)
    elif end == "close":
        results.close()
    else:
        with pytest.raises(ZeroDivisionError):
            results.throw(ZeroDivisionError)
    assert sorted(ended) == [1, 2]


def test_a_clock_cancels_between_stages() -> None:
    def work(case: int, report: Progress) -> None:
        clock = Clock(report)
        with clock("read", 0.0):
            stopped.wait(LIMIT_S)
        try:
            with clock("infer", 0.1):
                reached.append("infer")
        except Cancelled:
            reached.append("cancelled")
            raise

    reached, stopped = list[str](), threading.Event()
    results = in_order(work, [0], 1, lambda stage, done: results_stop())

    def results_stop() -> None:
        threading.Timer(0.2, stopped.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert reached == ["cancelled"]
