"""The node: one thread segments, one sends; pynetdicom's threads receive meanwhile."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastbts.errors import DeviceError, quietly
from fastbts.node.folder import IMAGES, RESULTS
from fastbts.node.queue import MAX_ATTEMPTS, Queue
from fastbts.node.receive import Address, serving
from fastbts.node.send import Destination, send
from fastbts.progress import Progress

log = logging.getLogger("fastbts.node")
Process = Callable[[Path, Path, Progress], Sequence[Path]]
"""Segments the study in a folder of images; writes into another folder, and returns the DICOM
files there that are to be sent. An error of the progress function ends it early."""
POLL_S = 0.2
AFTER_FAILED_DISK_S = 10.0
AFTER_MACHINE_FAULT_S = (60.0, 300.0)  # after the first attempt, and the second
MACHINE_FAULTS = (DeviceError, OSError, MemoryError)  # OSError: also of a full disk
JOIN_S = 60.0


class StoppedError(Exception):
    """The node was asked to end."""


@dataclass
class _Delay:
    """When to send again after a failure: each time after twice as long."""

    seconds: float
    until: float


@dataclass
class Node:
    """Receives studies into a queue, segments them one by one, and sends the results.

    Attributes:
        queue: The studies on disk.
        process: Segments a study.
        address: Where it listens.
        destination: Who gets the results.
        quiet_s: A study is complete when no image came for so long.
        retry_s: First and longest time until a failed transfer is tried again.
    """

    queue: Queue
    process: Process
    address: Address
    destination: Destination
    quiet_s: float = 30.0
    retry_s: tuple[float, float] = (1.0, 300.0)
    _stop: threading.Event = field(default_factory=threading.Event)
    _delays: dict[str, _Delay] = field(default_factory=dict)

    def run(self, listening: Callable[[int], None] = lambda port: None) -> None:
        """Works until `stop` is called, from another thread or a signal handler.

        Args:
            listening: Called with the port when others can connect.
        """
        # For all threads at once, because `quietly` is not for several.
        with quietly(), _silent_threads(), serving(self.queue, self.address) as port:
            log.info("AE %s listens on %s:%d", self.address.aet, self.address.host, port)
            listening(port)
            threads = [
                threading.Thread(target=self._repeat, args=[step], daemon=True)
                for step in (self._segment_next, self._send_all)
            ]
            for thread in threads:
                thread.start()
            self._stop.wait()
            log.info("stopping")
            end = time.monotonic() + JOIN_S
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))

    def stop(self) -> None:
        """Makes `run` return; a study that is running is put back."""
        self._stop.set()

    def _repeat(self, step: Callable[[], bool]) -> None:
        """Calls a step until the node stops; waits where there is nothing to do."""
        while not self._stop.is_set():
            try:
                if not step():
                    self._stop.wait(POLL_S)
            except OSError as error:
                log.error("the queue cannot be changed: %s", error.strerror or type(error).__name__)
                self._stop.wait(AFTER_FAILED_DISK_S)
            except Exception as error:  # a fault of ours must not end the thread unseen
                log.error("unexpected %s", type(error).__name__)
                self._stop.wait(AFTER_FAILED_DISK_S)

    def _segment_next(self) -> bool:
        self.queue.recover()  # what stayed there because the disk failed
        study = self.queue.next_quiet(self.quiet_s)
        if study is None:
            return False
        folder = self.queue.start(study)
        if folder:
            self._segment(study, folder)
        elif study in self.queue.studies("failed"):
            log.error("study %s: failed before it ran; see fastbts queue", study)
        else:
            log.info("study %s: only images that it had before; ignored", study)
        return True

    def _segment(self, study: str, folder: Path) -> None:
        log.info("study %s: segmenting %d images", study, len(list((folder / IMAGES).iterdir())))
        began = time.monotonic()
        (folder / RESULTS).mkdir()
        try:
            results = self.process(folder / IMAGES, folder / RESULTS, self._check_stop)
        except StoppedError:
            self.queue.put_back(study, stopped=True)
            log.info("study %s: put back", study)
        except MACHINE_FAULTS as error:
            self._try_later(study, error)
        except Exception as error:
            self._fail(study, error)
        else:
            self.queue.finish(study, results)
            log.info("study %s: segmented in %.1f s", study, time.monotonic() - began)

    def _fail(self, study: str, error: Exception) -> None:
        self.queue.fail(study, error)  # with its text, which may name the patient
        log.error("study %s: failed: %s; see fastbts queue", study, type(error).__name__)

    def _try_later(self, study: str, error: Exception) -> None:
        """What the machine lacks it may have later; so not all studies fail with it."""
        n = self.queue.attempts(study)
        if n >= MAX_ATTEMPTS:
            self._fail(study, error)
            return
        self.queue.put_back(study, stopped=False)
        wait_s, kind = AFTER_MACHINE_FAULT_S[n - 1], type(error).__name__
        log.error("study %s: put back: %s; nothing runs for %.0f s", study, kind, wait_s)
        self._stop.wait(wait_s)

    def _check_stop(self, stage: str, fraction: float) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _send_all(self) -> bool:
        studies = self.queue.studies("sending")
        due = [s for s in studies if s not in self._delays or self._is_due(self._delays[s])]
        for study in due:
            if self._stop.is_set():
                break
            try:
                self._send(study)
            except Exception as error:  # for example a damaged file: others are still sent
                self._delay(study, f"unexpected {type(error).__name__}")
        return bool(due)

    @staticmethod
    def _is_due(delay: _Delay) -> bool:
        return time.monotonic() >= delay.until

    def _send(self, study: str) -> None:
        files, failed = self.queue.unsent(study), ""
        for file, why_not in send(files, self.address.aet, self.destination) if files else ():
            if why_not:
                failed = why_not
            else:
                self.queue.accept(study, file)
        if failed:
            self._delay(study, failed)
            return
        self._delays.pop(study, None)
        self.queue.finish_sending(study)
        log.info("study %s: done", study)

    def _delay(self, study: str, why: str) -> None:
        first, longest = self.retry_s
        earlier = self._delays.get(study)
        seconds = min(2 * earlier.seconds, longest) if earlier else first
        self._delays[study] = _Delay(seconds, time.monotonic() + seconds)
        log.warning("study %s: not sent: %s; again in %.0f s", study, why, seconds)
        self.queue.note_unsent(study, why)


def stop_by_signals(node: Node) -> None:
    """SIGTERM and SIGINT make a node stop; a second one ends the process at once."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        # The main thread may hold the event's lock.
        threading.Thread(target=node.stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


@contextmanager
def _silent_threads() -> Iterator[None]:
    """Errors in pynetdicom's threads are logged without their text, which may quote a header."""

    def report(failed: Any) -> None:
        log.error("unexpected %s in %s", failed.exc_type.__name__, type(failed.thread).__name__)

    hook, logger = threading.excepthook, logging.getLogger("pynetdicom")
    level, threading.excepthook = logger.level, report
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        threading.excepthook = hook
        logger.setLevel(level)
