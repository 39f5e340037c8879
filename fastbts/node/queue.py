"""The studies of a node on disk.

    incoming/ID -> running/ID -> sending/ID -> done/ID
                       |
                       +-> failed/ID

ID is a hash of the StudyInstanceUID. A study is a folder that is renamed when its state changes, so
it has one state whenever the process is killed: what was running starts again, and what was sent is
recorded object by object.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fastbts.errors import CaseError, FastBTSError
from fastbts.files import write_json
from fastbts.node import disk
from fastbts.node.folder import (
    IMAGES,
    REASON,
    RECORD,
    RESULTS,
    STATES,
    images_in,
    read_record,
    write_record,
)

MAX_ATTEMPTS = 3  # that end with the process or by the machine, before a study is the cause
MAX_DONE = 1000  # studies that are remembered without their images
MAX_REFUSED = 1000  # studies of which refused images are remembered
MEASURE_EVERY_S = 60.0  # while the queue is full
UNSURE = 10  # times longer waits a study whose sender broke off, or has not ended
RECENT_S = 30.0  # a sender that has paused for so long had sent all


class QueueFullError(Exception):
    """There is no room for an image now; its sender should try again later."""


@dataclass(frozen=True)
class Limits:
    """How much a queue takes.

    Attributes:
        max_studies: Studies that wait, run or are sent.
        max_bytes: Size of the queue's files.
        keep: Keeps images and results of the studies that are done.
    """

    max_studies: int = 100
    max_bytes: int = 20 * 10**9
    keep: bool = False


def study_id(uid: str) -> str:
    """Names a study in folders and logs."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


class Queue:
    """The one user of a queue's folder; serves any number of threads.

    Raises:
        OptionsError: Another process uses the folder, or it cannot be made.
    """

    def __init__(self, folder: str | Path, limits: Limits | None = None) -> None:
        self.folder, self.limits = Path(folder), limits or Limits()
        self._file = disk.locked(self.folder)
        self._trash = self.folder / "temporary"
        self._lock = threading.RLock()
        self._last: dict[str, float] = {}  # study -> when its last image came
        self._refused: dict[str, set[str]] = {}  # study -> images that found the queue full
        self._senders: Counter[str] = Counter()  # study -> open associations that sent images
        self._broken: set[str] = set()  # studies whose sender broke off
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        for name in (*STATES, self._trash.name):
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(0o700)  # the queue's own folder may be older than it
        for path in self._trash.iterdir():
            disk.remove(path)
        self._n_bytes, self._measured = disk.n_bytes(self.folder), time.monotonic()
        # Of those that did not run yet, the end of the last process may have stopped the sender.
        incoming = self.folder / "incoming"
        self._broken.update(p.name for p in incoming.iterdir() if not (p / RECORD).exists())
        self.recover()

    @contextmanager
    def temporary_files(self) -> Iterator[None]:
        """Makes temporary files of this process, which may show a patient, part of the queue.

        So the next start removes what a killed process left.
        """
        former, tempfile.tempdir = tempfile.tempdir, str(self._trash.absolute())
        try:
            yield
        finally:
            tempfile.tempdir = former

    def close(self) -> None:
        """Lets another process use the folder."""
        self._file.close()

    def recover(self) -> None:
        """Puts back what was running when the process, or the disk, failed."""
        for study in self.studies("running"):
            self.put_back(study, stopped=False)

    def studies(self, *states: str) -> list[str]:
        """IDs of the studies in these states."""
        return [path.name for state in states for path in sorted((self.folder / state).iterdir())]

    # Incoming

    def add(self, study_uid: str, instance_uid: str, content: bytes) -> bool:
        """Stores an image, or its corrected copy; it is on disk when this returns.

        Returns:
            Whether it is new, not the repeat of one that waits or runs.
        Raises:
            QueueFullError: There is no room.
        """
        study, name = study_id(study_uid), hashlib.sha256(instance_uid.encode()).hexdigest()[:32]
        with self._lock:
            is_new = not self._has(study, name, content)
            if is_new:
                self._reserve(study, name, len(content))
        if is_new:
            self._store(study, name, content)
        with self._lock:
            self._last[study] = time.monotonic()
            self._broken.discard(study)
            self._refused.get(study, set()).discard(name)
        return is_new

    def _store(self, study: str, name: str, content: bytes) -> None:
        try:
            temporary = disk.write_new(self._trash, content)
            try:
                with self._lock:
                    disk.move(temporary, self._path("incoming", study) / IMAGES / name)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            with self._lock:
                self._n_bytes -= len(content)
            self._refuse(study, name, error.strerror or "the disk failed")

    def begin(self, study: str) -> None:
        """A sender has opened an association with images of a study."""
        with self._lock:
            self._senders[study] += 1

    def end(self, study: str, *, released: bool) -> None:
        """Such an association has ended; one that was not released may be opened again soon."""
        with self._lock:
            self._senders[study] -= 1
            self._senders += Counter()  # drops zeros
            last = self._last.get(study, 0.0)
            waits = self._path("incoming", study).exists()
            if not released and waits and time.monotonic() - last < RECENT_S:
                self._broken.add(study)

    def _has(self, study: str, name: str, content: bytes) -> bool:
        """Whether the newest copy of an image, in a study that waits or runs, is equal."""
        for state in ("incoming", "running", "sending"):
            path = self._path(state, study) / IMAGES / name
            if path.exists():
                return path.read_bytes() == content
        return False

    def _reserve(self, study: str, name: str, n_bytes: int) -> None:
        waiting = set(self.studies("incoming", "running", "sending"))
        if study not in waiting and len(waiting) >= self.limits.max_studies:
            self._refuse(study, name, f"{len(waiting)} studies wait")
        full = self._n_bytes + n_bytes > self.limits.max_bytes
        if full and time.monotonic() - self._measured > MEASURE_EVERY_S:  # files may be gone
            self._n_bytes, self._measured = disk.n_bytes(self.folder), time.monotonic()
            full = self._n_bytes + n_bytes > self.limits.max_bytes
        if full:
            self._refuse(study, name, f"{self._n_bytes / 1e9:.1f} GB are used")
        self._n_bytes += n_bytes

    def _refuse(self, study: str, name: str, why: str) -> NoReturn:
        with self._lock:
            self._refused.setdefault(study, set()).add(name)
            while len(self._refused) > MAX_REFUSED:
                del self._refused[next(iter(self._refused))]
        raise QueueFullError(why)

    def next_quiet(self, quiet_s: float) -> str | None:
        """The study that has waited longest since its last image, if that is long enough.

        A study whose earlier result is still being sent waits until that was accepted.
        """
        with self._lock:
            now, sending = time.monotonic(), self.studies("sending")
            waiting = [s for s in self.studies("incoming") if s not in sending]
            for study in waiting:  # after a restart, and of `retry`, the time is unknown
                self._last.setdefault(study, now)
            unsure = self._broken.union(self._senders)
            times = {study: UNSURE if study in unsure else 1 for study in waiting}
            quiet = [s for s in waiting if now - self._last[s] >= quiet_s * times[s]]
            return min(quiet, key=self._last.__getitem__, default=None)

    # Running

    def start(self, study: str) -> Path | None:
        """Takes a study and all images of it that an earlier run left.

        Returns:
            Its folder; None if there is nothing to run.
        """
        with self._lock:
            self._last.pop(study, None)
            self._broken.discard(study)
            incoming, running = self._path("incoming", study), self._path("running", study)
            if self._only_repeats(study):
                self._discard(incoming)
                return None
            for state in ("failed", "done"):
                self._move_images(self._path(state, study), incoming)
            self._discard(self._path("failed", study))
            if not images_in(incoming):  # killed before its first image was there
                self._discard(incoming)
                return None
            (incoming / REASON).unlink(missing_ok=True)  # of a failed one that is tried again
            disk.move(incoming, running)
            names = sorted(path.name for path in (running / IMAGES).iterdir())
            attempts = read_record(running).get("attempts", 0)
            write_record(running, attempts=attempts + 1, instances=names)
            missing = self._refused.pop(study, set()) - set(names)
        return None if self._hopeless(study, attempts, len(missing)) else running

    def _only_repeats(self, study: str) -> bool:
        """Whether all images, but not a whole study, are of a study that is done."""
        known = set(read_record(self._path("done", study)).get("instances", ()))
        return images_in(self._path("incoming", study)) < known

    def _hopeless(self, study: str, attempts: int, n_missing: int) -> bool:
        if n_missing:
            self.fail(study, CaseError(
                f"study: the queue was full when {n_missing} of its images came; send it again"
            ))  # fmt: skip
        elif attempts >= MAX_ATTEMPTS:
            self.fail(study, CaseError(
                f"study: the process ended {attempts} times while it ran, perhaps for lack of "
                "memory; free memory, then `fastbts queue --retry`"
            ))  # fmt: skip
        return bool(n_missing) or attempts >= MAX_ATTEMPTS

    def attempts(self, study: str) -> int:
        """How often a running study was started, this time included."""
        n: int = read_record(self._path("running", study)).get("attempts", 0)
        return n

    def put_back(self, study: str, *, stopped: bool) -> None:
        """Makes a running study wait again; `stopped`: on purpose, so it counts as no attempt."""
        with self._lock:
            running, incoming = self._path("running", study), self._path("incoming", study)
            self._discard(running / RESULTS)
            if stopped:
                write_record(running, attempts=0)
            if incoming.exists():
                self._move_images(running, incoming)
                write_record(incoming, attempts=read_record(running).get("attempts", 0))
                self._discard(running)
            else:
                disk.move(running, incoming)

    def finish(self, study: str, results: Iterable[Path]) -> None:
        """Makes the results of a running study wait for being sent; they are in its folder."""
        running = self._path("running", study)
        names = [path.name for path in results]
        for name in names:
            disk.sync(running / RESULTS / name)
        disk.sync(running / RESULTS)
        with self._lock:
            self._n_bytes += disk.n_bytes(running / RESULTS)
            write_record(running, attempts=0, results=names, accepted=[])
            disk.move(running, self._path("sending", study))

    def fail(self, study: str, error: BaseException) -> None:
        """Keeps a running study with the reason why it could not be segmented."""
        running = self._path("running", study)
        reason: dict[str, Any] = {
            "study": study,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "n_images": len(images_in(running)),
            "error": type(error).__name__,
            "message": str(error),
        }
        if self._path("done", study).exists() and not self.limits.keep:
            reason["hint"] = (
                "its result was sent before and its images were forgotten; these came later: "
                "send the whole study again"
            )
        if not isinstance(error, FastBTSError):
            reason["traceback"] = traceback.format_exception(error)
        with self._lock:
            self._discard(running / RESULTS)
            write_json(running / REASON, reason)
            self._discard(self._path("failed", study))
            disk.move(running, self._path("failed", study))

    # Sending

    def unsent(self, study: str) -> list[Path]:
        """Results that the destination did not accept yet."""
        folder = self._path("sending", study)
        record = read_record(folder)
        names = [n for n in record["results"] if n not in record.get("accepted", ())]
        return [folder / RESULTS / name for name in names]

    def accept(self, study: str, result: Path) -> None:
        """Records that the destination has a result."""
        folder = self._path("sending", study)
        write_record(folder, accepted=[*read_record(folder).get("accepted", ()), result.name])

    def note_unsent(self, study: str, why: str) -> None:
        """Records why the destination does not have all results."""
        write_record(self._path("sending", study), unsent=why)

    def finish_sending(self, study: str) -> None:
        """Ends a study all of whose results were accepted; its images are forgotten or kept."""
        with self._lock:
            sending, incoming = self._path("sending", study), self._path("incoming", study)
            if incoming.exists():  # images came meanwhile: all are segmented together
                self._move_images(sending, incoming)
            else:
                self._last.pop(study, None)  # of repeats
            if not self.limits.keep:
                self._discard(sending / IMAGES)
                self._discard(sending / RESULTS)
            self._discard(self._path("done", study))
            disk.move(sending, self._path("done", study))
            if not self.limits.keep:
                self._forget_old()

    def _forget_old(self) -> None:
        done = sorted((self.folder / "done").iterdir(), key=lambda path: path.stat().st_mtime)
        for path in done[:-MAX_DONE]:
            self._discard(path)

    # Files

    def _path(self, state: str, study: str) -> Path:
        return self.folder / state / study

    def _move_images(self, source: Path, target: Path) -> None:
        """Adds images; those that the target has are newer."""
        for name in sorted(images_in(source) - images_in(target)):
            disk.move(source / IMAGES / name, target / IMAGES / name)

    def _discard(self, path: Path) -> None:
        if path.exists():
            self._n_bytes -= disk.n_bytes(path)
            disk.discard(path, self._trash)
