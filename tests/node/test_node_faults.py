"""A node on a machine that lacks something for a while, and with results that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbts.errors import CaseError, DeviceError, OutputError
from fastbts.node.listing import rows
from fastbts.node.queue import MAX_ATTEMPTS, Queue
from fastbts.progress import Progress
from tests.node.nodes import Archive, fake_process, running, send_images, until, write_images

pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbts.node.node.AFTER_MACHINE_FAULT_S", (0.1, 0.2))


def states(queue: Queue) -> list[str]:
    return sorted(row.state for row in rows(queue.folder))


@pytest.mark.parametrize(
    "fault", [DeviceError("out of memory"), OutputError("full"), MemoryError()]
)
def test_a_study_is_tried_again_when_the_machine_failed(
    tmp_path: Path, queue: Queue, archive: Archive, fault: Exception
) -> None:
    faults = [fault] * (MAX_ATTEMPTS - 1)

    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        if faults:
            raise faults.pop()
        return fake_process(images, out, progress)

    with running(queue, archive, process=process) as port:
        send_images(write_images(tmp_path / "study"), port)
        until("the study is done", lambda: states(queue) == ["done"])
    assert list(archive.taken.values()) == [1, 1]


@pytest.mark.parametrize(
    ("fault", "n"), [(DeviceError("no memory"), MAX_ATTEMPTS), (CaseError("no T2"), 1)]
)
def test_a_study_fails_for_good_in_the_end(
    tmp_path: Path, queue: Queue, archive: Archive, fault: Exception, n: int
) -> None:
    n_attempts = 0

    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        nonlocal n_attempts
        n_attempts += 1
        raise fault

    with running(queue, archive, process=process, quiet_s=1.0) as port:
        send_images(write_images(tmp_path / "study"), port)
        until("the study failed", lambda: states(queue) == ["failed"])
    assert n_attempts == n
    assert rows(queue.folder)[0].reason == f"{type(fault).__name__}: {fault}"


def test_the_list_says_why_a_result_is_not_sent(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    archive.answer = lambda dataset: 0xC001 if "SR" in dataset.SOPClassUID.name else 0
    with running(queue, archive) as port:
        send_images(write_images(tmp_path / "study"), port)
        expected = "not sent: ARCHIVE refused it with status 0xC001"
        until("it is refused", lambda: [row.reason for row in rows(queue.folder)] == [expected])
        archive.answer = lambda dataset: 0
        until("the study is done", lambda: states(queue) == ["done"])
    assert rows(queue.folder)[0].reason == ""


def test_damaged_results_do_not_hold_up_others(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    archive.answer = lambda dataset: 0xA700
    with running(queue, archive, quiet_s=1.0) as port:
        send_images(write_images(tmp_path / "1", 1), port)
        until("the first waits", lambda: states(queue) == ["sending"])
        (first,) = (queue.folder / "sending").iterdir()
        for path in (first / "results").iterdir():
            path.unlink()
        (first / "study.json").write_bytes(b"")
        archive.answer = lambda dataset: 0
        send_images(write_images(tmp_path / "2", 2), port)
        until("the second is done", lambda: states(queue) == ["done", "sending"])
    assert list(archive.taken.values()) == [1, 1]
