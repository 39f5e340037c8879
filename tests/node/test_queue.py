"""The queue on disk: its states, its limits, and images that come late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastbts.errors import CaseError, OptionsError
from fastbts.node import disk
from fastbts.node.listing import retry, rows
from fastbts.node.queue import MAX_ATTEMPTS, Limits, Queue, QueueFullError
from tests.node.queues import A, B, fill, run, send, start, states

Limited = Callable[..., Queue]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Limited]:
    """Makes a queue with limits."""
    made: list[Queue] = []

    def make(**limits: Any) -> Queue:
        made.append(Queue(tmp_path, Limits(**limits)))
        return made[-1]

    yield make
    made[-1].close()


def test_a_study_passes_through_all_states(queue: Queue) -> None:
    fill(queue, "1", "2")
    assert states(queue) == {(A, "incoming", 2)}
    run(queue)
    assert states(queue) == {(A, "sending", 2)}
    assert [path.name for path in queue.unsent(A)] == ["seg.dcm", "sr.dcm"]
    send(queue)
    assert states(queue) == {(A, "done", 0)}
    assert sorted(p.name for p in (queue.folder / "done" / A).iterdir()) == ["study.json"]


def test_an_image_that_comes_twice_is_one(queue: Queue) -> None:
    assert queue.add("1.2.3", "1", b"pixels")
    assert not queue.add("1.2.3", "1", b"pixels")
    assert states(queue) == {(A, "incoming", 1)}
    folder = start(queue)
    assert not queue.add("1.2.3", "1", b"pixels")
    assert states(queue) == {(A, "running", 1)}
    assert next((folder / "images").iterdir()).read_bytes() == b"pixels"


def test_a_study_waits_until_it_is_quiet(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    fill(queue, "1")
    now = 120.0
    fill(queue, "1", study="1.2.4")
    now = 125.0
    fill(queue, "2")
    now = 154.0
    assert queue.next_quiet(30) == B
    now = 155.0
    assert queue.next_quiet(30) == B
    queue.start(B)
    assert queue.next_quiet(30) == A


def test_a_study_whose_sender_broke_off_waits_longer(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    fill(queue, "1")
    queue.begin(A)
    queue.end(A, released=False)
    now = 399.0
    assert queue.next_quiet(30) is None
    now = 400.0
    assert queue.next_quiet(30) == A
    fill(queue, "2")  # the sender is back
    now = 430.0
    assert queue.next_quiet(30) == A


def test_a_sender_that_ends_after_a_pause_had_sent_all(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    fill(queue, "1")
    now = 160.0
    queue.begin(A)
    queue.end(A, released=False)
    assert queue.next_quiet(60) == A


def test_a_study_waits_longer_while_its_sender_is_connected(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever: some senders stay connected."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    queue.begin(A)
    fill(queue, "1")
    now = 399.0
    assert queue.next_quiet(30) is None
    now = 400.0
    assert queue.next_quiet(30) == A
    now = 130.0
    queue.begin(A)
    queue.end(A, released=True)
    assert queue.next_quiet(30) is None
    queue.end(A, released=True)
    assert queue.next_quiet(30) == A


def test_a_restart_while_a_study_came_counts_as_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a study that was complete and running."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    queue = Queue(tmp_path)
    fill(queue, "1")
    start(queue)
    fill(queue, "1", study="1.2.4")
    queue.close()
    queue = Queue(tmp_path)
    assert queue.next_quiet(30) is None
    now = 130.0
    assert queue.next_quiet(30) == A
    queue.start(A)
    assert queue.next_quiet(30) is None
    now = 400.0
    assert queue.next_quiet(30) == B
    queue.close()


def test_kept_studies_have_images_and_results(limited: Limited) -> None:
    queue = limited(keep=True)
    fill(queue, "1", "2")
    run(queue)
    send(queue)
    assert states(queue) == {(A, "done", 2)}
    names = {path.name for path in (queue.folder / "done" / A).iterdir()}
    assert names == {"images", "results", "study.json"}


def test_a_file_is_no_queue(tmp_path: Path) -> None:
    file = tmp_path / "image.dcm"
    file.touch()
    with pytest.raises(OptionsError, match="cannot be the folder of a queue: File exists; give"):
        Queue(file)


def test_only_one_process_uses_a_queue(queue: Queue) -> None:
    with pytest.raises(OptionsError, match="another `fastbts listen` uses this queue; stop it, or"):
        Queue(queue.folder)
    code = f"from fastbts.node.queue import Queue; Queue({str(queue.folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OptionsError" in done.stderr
    queue.close()
    Queue(queue.folder).close()


def test_others_cannot_read_the_queue(tmp_path: Path) -> None:
    Queue(tmp_path / "queue").close()
    assert (tmp_path / "queue").stat().st_mode & 0o077 == 0


# Images that come late


def test_images_during_a_run_are_segmented_with_the_others(queue: Queue) -> None:
    fill(queue, "1", "2")
    run(queue)
    fill(queue, "3")
    assert queue.next_quiet(0) is None  # the first result is not sent yet
    send(queue)
    assert states(queue) == {(A, "incoming", 3), (A, "done", 0)}
    run(queue)
    assert states(queue) == {(A, "sending", 3), (A, "done", 0)}


def test_images_after_a_failure_are_segmented_with_the_others(queue: Queue) -> None:
    fill(queue, "1", "2")
    start(queue)
    queue.fail(A, CaseError("study: no T2"))
    fill(queue, "3")
    assert len(list((start(queue) / "images").iterdir())) == 3
    assert states(queue) == {(A, "running", 3)}


def test_images_of_a_forgotten_study_fail_with_a_hint(queue: Queue) -> None:
    fill(queue, "1", "2")
    run(queue)
    send(queue)
    fill(queue, "3")
    start(queue)
    queue.fail(A, CaseError("study: no FLAIR"))
    (row,) = [row for row in rows(queue.folder) if row.state == "failed"]
    assert row.reason == (
        "CaseError: study: no FLAIR its result was sent before and its images were forgotten; "
        "these came later: send the whole study again"
    )


def test_images_of_a_kept_study_are_segmented_with_the_others(limited: Limited) -> None:
    queue = limited(keep=True)
    fill(queue, "1", "2")
    run(queue)
    send(queue)
    fill(queue, "3")
    run(queue)
    send(queue)
    assert states(queue) == {(A, "done", 3)}


def test_a_repeated_part_of_a_study_is_dropped(queue: Queue) -> None:
    """An archive that got no answer sends an image again, perhaps after the study was done."""
    fill(queue, "1", "2")
    run(queue)
    send(queue)
    fill(queue, "2")
    assert queue.start(A) is None
    assert states(queue) == {(A, "done", 0)}


def test_a_study_that_is_sent_again_runs_again(queue: Queue) -> None:
    for _ in range(2):
        fill(queue, "1", "2")
        run(queue)
        send(queue)
    assert states(queue) == {(A, "done", 0)}


# Limits


def test_more_studies_than_allowed_are_refused(limited: Limited) -> None:
    queue = limited(max_studies=1)
    fill(queue, "1")
    with pytest.raises(QueueFullError, match="1 studies wait"):
        fill(queue, "1", study="1.2.4")
    fill(queue, "2")  # of the study that has a place
    run(queue)
    send(queue)
    fill(queue, "1", study="1.2.4")


def test_more_bytes_than_allowed_are_refused(limited: Limited) -> None:
    queue = limited(max_bytes=1000)
    queue.add("1.2.3", "1", bytes(600))
    with pytest.raises(QueueFullError, match=r"0\.0 GB are used"):
        queue.add("1.2.4", "1", bytes(600))
    run(queue)
    send(queue)
    assert queue.add("1.2.4", "1", bytes(600))


def test_a_queue_that_was_emptied_by_hand_takes_images(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = limited(max_bytes=1000)
    queue.add("1.2.3", "1", bytes(600))
    start(queue)
    queue.fail(A, CaseError("study: no T2"))
    disk.remove(queue.folder / "failed" / A)
    monkeypatch.setattr("fastbts.node.queue.MEASURE_EVERY_S", 0)
    assert queue.add("1.2.4", "1", bytes(600))


def test_a_full_disk_refuses_and_leaves_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(QueueFullError, match="No space left on device"):
            fill(queue, "1")
    assert list((queue.folder / "temporary").iterdir()) == []
    assert states(queue) == set()
    fill(queue, "1")


def test_a_study_that_lacks_refused_images_is_not_segmented(limited: Limited) -> None:
    """Without its last slices it may look complete."""
    queue = limited(max_bytes=1000)
    queue.add("1.2.3", "1", bytes(600))
    with pytest.raises(QueueFullError):
        queue.add("1.2.3", "2", bytes(600))
    assert queue.start(A) is None
    (row,) = rows(queue.folder)
    assert row.reason == (
        "CaseError: study: the queue was full when 1 of its images came; send it again"
    )


def test_a_refused_image_that_comes_again_completes_its_study(limited: Limited) -> None:
    queue = limited(max_bytes=1000)
    queue.add("1.2.4", "1", bytes(600))
    run(queue, B)
    with pytest.raises(QueueFullError):
        queue.add("1.2.3", "1", bytes(600))
    send(queue, B)
    queue.add("1.2.3", "1", bytes(600))
    assert start(queue)


# Failures


def test_a_failed_study_has_a_reason_and_can_be_tried_again(queue: Queue) -> None:
    fill(queue, "1")
    start(queue)
    queue.fail(A, CaseError("study: no T2"))
    reason = json.loads((queue.folder / "failed" / A / "reason.json").read_bytes())
    assert (reason["error"], reason["message"]) == ("CaseError", "study: no T2")
    assert reason["n_images"] == 1
    assert retry(queue.folder) == [A]
    run(queue)
    assert [(row.state, row.reason) for row in rows(queue.folder)] == [("sending", "")]


def test_a_fault_of_ours_is_kept_with_its_traceback(queue: Queue) -> None:
    fill(queue, "1")
    start(queue)
    try:
        raise KeyError("modality")
    except KeyError as error:
        queue.fail(A, error)
    reason = json.loads((queue.folder / "failed" / A / "reason.json").read_bytes())
    assert "raise KeyError" in "".join(reason["traceback"])


def test_only_failed_studies_can_be_tried_again(queue: Queue) -> None:
    fill(queue, "1")
    with pytest.raises(CaseError, match=f"no failed study {A}; failed are: none"):
        retry(queue.folder, [A])


def test_a_study_that_ends_the_process_is_not_tried_for_ever(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    fill(queue, "1")
    for _ in range(MAX_ATTEMPTS):
        start(queue)
        queue.close()  # as if killed
        queue = Queue(tmp_path)
    assert queue.start(A) is None
    (row,) = rows(tmp_path)
    assert "the process ended 3 times while it ran, perhaps for lack of memory" in row.reason
    retry(tmp_path)
    assert start(queue)
    queue.close()


def test_a_study_that_was_put_back_counts_no_attempt(queue: Queue) -> None:
    fill(queue, "1")
    for _ in range(MAX_ATTEMPTS + 1):
        start(queue)
        queue.put_back(A, stopped=True)
    assert states(queue) == {(A, "incoming", 1)}
