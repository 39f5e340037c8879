"""Progress and wall time of the stages, and how work in a thread is cancelled between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

_STOP: ContextVar[Event | None] = ContextVar("stop", default=None)

Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction of the total work that is done, 0 to 1."""


class Cancelled(BaseException):
    """The work in this thread is not wanted any more. No `Exception`: nothing handles it."""


@contextmanager
def cancelled_by(stop: Event) -> Iterator[None]:
    """Lets `stop` cancel the block, which runs in this thread."""
    token = _STOP.set(stop)
    try:
        yield
    finally:
        _STOP.reset(token)


def check_cancelled() -> None:
    """Called now and then by long work; raises `Cancelled` if this thread's work is cancelled."""
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise Cancelled


class Clock:
    """Adds up wall time per stage and reports progress."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._began = progress, time.perf_counter()
        self._ms: dict[str, float] = {}
        self._reported = "", 0.0

    @contextmanager
    def __call__(self, stage: str, fraction: float) -> Iterator[None]:
        """Times the block as part of a stage; `fraction` of the total work is done before it.

        Raises:
            Cancelled: See `check_cancelled`.
        """
        check_cancelled()
        fraction = max(fraction, self._reported[1])  # work that is done again was done before
        if self._progress and (stage, fraction) != self._reported:
            self._progress(stage, fraction)
            self._reported = stage, fraction
        began = time.perf_counter()
        yield
        self._ms[stage] = self._ms.get(stage, 0.0) + 1000 * (time.perf_counter() - began)

    def finish(self) -> dict[str, float]:
        """Returns the wall time of each stage, and in total, in milliseconds."""
        if self._progress:
            self._progress("done", 1.0)
        total = 1000 * (time.perf_counter() - self._began)
        return {stage: round(ms, 3) for stage, ms in {**self._ms, "total": total}.items()}
