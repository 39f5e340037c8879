"""The queue with corrected images, and after damage."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fastbts.errors import CaseError
from fastbts.node import disk
from fastbts.node.queue import MAX_ATTEMPTS, Queue, QueueFullError
from tests.node.queues import A, fill, run, send, start, states


def images(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "images").iterdir())]


def test_a_corrected_image_replaces_the_one_that_waits(queue: Queue) -> None:
    """An archive that corrects the patient keeps the UIDs."""
    fill(queue, "1")
    assert queue.add("1.2.3", "1", b"corrected")
    assert images(start(queue)) == [b"corrected"]


def test_a_corrected_image_replaces_the_one_that_failed(queue: Queue) -> None:
    fill(queue, "1")
    start(queue)
    queue.fail(A, CaseError("study: two patients"))
    assert queue.add("1.2.3", "1", b"corrected")
    assert images(start(queue)) == [b"corrected"]


def test_a_corrected_image_during_a_run_leads_to_another(queue: Queue) -> None:
    fill(queue, "1")
    run(queue)
    assert queue.add("1.2.3", "1", b"corrected")
    send(queue)
    assert images(start(queue)) == [b"corrected"]


def test_a_corrected_image_is_kept_by_a_restart(queue: Queue) -> None:
    fill(queue, "1")
    start(queue)
    assert queue.add("1.2.3", "1", b"corrected")
    queue.recover()
    assert images(start(queue)) == [b"corrected"]


def test_a_repeat_by_a_sender_that_is_back_ends_the_longer_wait(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    fill(queue, "1")
    queue.begin(A)
    queue.end(A, released=False)
    fill(queue, "1")
    now = 130.0
    assert queue.next_quiet(30) == A


def test_a_folder_without_images_is_removed(queue: Queue) -> None:
    """A kill between making the folder and moving the image into it leaves one."""
    (queue.folder / "incoming" / A).mkdir()
    assert queue.start(A) is None
    assert states(queue) == set()


def test_a_damaged_record_stops_nothing(queue: Queue) -> None:
    fill(queue, "1")
    (queue.folder / "incoming" / A / "study.json").write_bytes(b"")
    assert images(start(queue)) == [b"pixels"]


def test_a_disk_that_takes_no_folder_keeps_no_temporary_file(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "move", full)
        with pytest.raises(QueueFullError, match="No space left on device"):
            fill(queue, "1")
    assert list((queue.folder / "temporary").iterdir()) == []


def test_others_cannot_read_a_queue_in_a_folder_that_was_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    queue = Queue(tmp_path)
    fill(queue, "1")
    queue.close()
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 6
    assert not any(path.stat().st_mode & 0o077 for path in folders)


def test_attempts_are_counted_also_where_images_come(queue: Queue) -> None:
    for n in range(MAX_ATTEMPTS):
        fill(queue, str(n))
        start(queue)
        fill(queue, f"{n} late")
        queue.recover()
    assert queue.start(A) is None


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    queue, former = Queue(tmp_path), tempfile.gettempdir()
    with queue.temporary_files():
        decoded = Path(tempfile.mkdtemp())
    assert tempfile.gettempdir() == former
    queue.close()
    assert decoded.exists()
    Queue(tmp_path).close()
    assert not decoded.exists()
