"""Nothing is lost and nothing comes twice, at whatever change of the disk it is killed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastbts.node import disk
from fastbts.node.listing import rows
from fastbts.node.queue import Limits, Queue


class Killed(BaseException):
    """Stands for the end of the process."""


class Killer:
    """Ends the "process" at the n-th change of the disk, before or after it."""

    CHANGES = (
        *((os, name) for name in ("replace", "unlink", "rmdir", "mkdir", "link")),
        (disk.shutil, "rmtree"),
    )

    def __init__(self, n: int, after: bool) -> None:
        self.left, self.after = n, after

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for module, name in self.CHANGES:
            patch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **options: Any) -> Any:
            self.left -= 1
            last = self.left == 0
            if last and not self.after:
                raise Killed
            try:
                return change(*args, **options)
            finally:
                if last:
                    raise Killed

        return changed


def life(folder: Path, archive: Counter[str], keep: bool) -> None:
    """What a node does from its start until all that was sent to it is done.

    The sender repeats what was not confirmed. One image comes while the study runs.
    """
    queue = Queue(folder, Limits(keep=keep))
    try:
        for instance in ("1", "2"):
            queue.add("1.2.3", instance, b"pixels")
        while True:
            for study in queue.studies("sending"):
                for result in queue.unsent(study):
                    archive[result.read_text()] += 1
                    queue.accept(study, result)
                queue.finish_sending(study)
            if "2 images" in archive and "3 images" not in archive:
                queue.add("1.2.3", "3", b"pixels")
            study = queue.next_quiet(0)
            if study is None:
                return
            if images := queue.start(study):
                out = images / "results"
                out.mkdir()
                n = len(list((images / "images").iterdir()))
                (out / "seg.dcm").write_text(f"{n} images")
                if n == 2:
                    queue.add("1.2.3", "3", b"pixels")
                queue.finish(study, [out / "seg.dcm"])
    finally:
        queue.close()


# A process that ends closes its files; here they stay open for a while.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_change_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, after: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # for speed: a kill loses no writes
    n, killed = 0, True
    while killed:
        n += 1
        folder, archive = tmp_path / str(n), Counter[str]()
        with monkeypatch.context() as patch:
            Killer(n, after).install(patch)
            try:
                life(folder, archive, keep)
                killed = False
            except Killed:
                pass
        life(folder, archive, keep)
        # Without the result of two images if all three came before it was computed.
        assert {"3 images"} <= set(archive) <= {"2 images", "3 images"}, n
        # A kill between the answer of the archive and its record repeats one object, under its UID.
        assert sum(archive.values()) <= 3, n
        assert {row.state for row in rows(folder)} == {"done"}, n
        assert list((folder / "temporary").iterdir()) == []
    assert n > 40
