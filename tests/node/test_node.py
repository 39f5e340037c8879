"""A node on the loopback: what it takes, what it refuses, what it sends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastbts.errors import CaseError, OptionsError
from fastbts.node.listing import rows
from fastbts.node.node import Node
from fastbts.node.queue import Queue
from fastbts.node.receive import Address
from fastbts.node.send import Destination
from fastbts.progress import Progress
from tests.node.nodes import (
    DEADLINE_S,
    PATIENT,
    Archive,
    digest,
    echo,
    fake_process,
    running,
    send_images,
    until,
    write_images,
)
from tests.node.queues import state_names

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def test_a_study_comes_back_as_segmentation_and_report(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    files = write_images(tmp_path / "study")
    with running(queue, archive) as port:
        assert echo(port) == 0
        assert send_images(files, port) == [0] * len(files)
        until("the study is done", lambda: state_names(queue) == ["done"])
    assert list(archive.taken.values()) == [1, 1]
    assert archive.studies == {str(pydicom.dcmread(files[0]).StudyInstanceUID)}


def test_studies_that_come_at_once_are_segmented_one_by_one(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    studies = [write_images(tmp_path / str(n), n) for n in range(3)]
    at_once = []

    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        at_once.append(len(list((queue.folder / "running").iterdir())))
        return fake_process(images, out, progress)

    with running(queue, archive, process=process) as port:
        senders = [threading.Thread(target=send_images, args=[f, port]) for f in studies]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        until("all are done", lambda: state_names(queue) == ["done"] * 3)
    assert at_once == [1, 1, 1]
    assert len(archive.studies) == 3
    assert list(archive.taken.values()) == [1] * 6


def test_images_are_received_while_a_study_runs(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    go_on, has_begun = threading.Event(), threading.Event()

    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        has_begun.set()
        assert go_on.wait(DEADLINE_S)
        return fake_process(images, out, progress)

    with running(queue, archive, process=process) as port:
        send_images(write_images(tmp_path / "1", 1), port)
        assert has_begun.wait(DEADLINE_S)
        files = write_images(tmp_path / "2", 2)
        assert send_images(files, port) == [0] * len(files)
        assert state_names(queue) == ["incoming", "running"]
        go_on.set()
        until("both are done", lambda: state_names(queue) == ["done"] * 2)


def test_files_are_stored_as_they_were_sent(tmp_path: Path, queue: Queue, archive: Archive) -> None:
    """Compressed pixels stay compressed."""
    path = write_images(tmp_path / "study", n=2)[0]
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.JPEGLSLossless)
    dataset.save_as(path)
    with running(queue, archive, quiet_s=3600) as port:
        assert send_images([path], port) == [0]
        (stored,) = queue.folder.glob("incoming/*/images/*")
    received = pydicom.dcmread(stored)
    assert received.file_meta.TransferSyntaxUID == pydicom.uid.JPEGLSLossless
    assert received.PixelData == dataset.PixelData
    assert received == dataset


def test_what_is_no_image_is_not_kept(tmp_path: Path, queue: Queue, archive: Archive) -> None:
    """An archive may forward the segmentation that it got: that must not start a new run."""
    files = write_images(tmp_path / "study")
    (tmp_path / "out").mkdir()
    results = fake_process(files[0].parent, tmp_path / "out", lambda stage, fraction: None)
    with running(queue, archive) as port:
        assert send_images(results, port) == [0, 0]
    assert state_names(queue) == []


def test_a_sender_that_breaks_off_gets_more_time(
    tmp_path: Path, queue: Queue, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = write_images(tmp_path / "study", n=2)
    with running(queue, archive, quiet_s=1.0) as port:
        assert send_images(files[:2], port, breaks_off=True) == [0, 0]
        until("that is seen", lambda: "its sender broke off" in caplog.text)
        assert send_images(files[2:], port) == [0, 0]
        until("the study is done", lambda: state_names(queue) == ["done"])
    assert "segmenting 4 images" in caplog.text


# Failures


def test_a_failed_study_is_kept_with_its_reason(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        raise CaseError("study: no T2 among 2 series")

    with running(queue, archive, process=process) as port:
        send_images(write_images(tmp_path / "study"), port)
        until("the study failed", lambda: state_names(queue) == ["failed"])
        assert echo(port) == 0
    (row,) = rows(queue.folder)
    assert (row.n_images, row.reason) == (6, "CaseError: study: no T2 among 2 series")
    assert archive.taken == {}


def test_a_result_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, queue: Queue, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    def process(images: Path, out: Path, progress: Progress) -> list[Path]:
        results = fake_process(images, out, progress)
        if len(list(images.iterdir())) == 4:
            results[0].write_bytes(b"damaged")
        return results

    with running(queue, archive, process=process) as port:
        send_images(write_images(tmp_path / "1", 1, n=2), port)
        until("it is not sent", lambda: "not sent: unexpected InvalidDicomError" in caplog.text)
        send_images(write_images(tmp_path / "2", 2, n=3), port)
        until("the other is done", lambda: state_names(queue) == ["done", "sending"])


def test_results_wait_for_an_archive_that_is_away(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    port = archive.port
    archive.close()
    with running(queue, archive) as node_port:
        send_images(write_images(tmp_path / "study"), node_port)
        until("the result waits", lambda: state_names(queue) == ["sending"])
        archive = Archive(port)
        until("the study is done", lambda: state_names(queue) == ["done"])
    archive.close()
    assert list(archive.taken.values()) == [1, 1]


def test_what_was_accepted_is_not_sent_again(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    """The archive refuses reports for a while."""
    n_refused = 0

    def answer(dataset: pydicom.Dataset) -> int:
        nonlocal n_refused
        refused = "SR" in dataset.SOPClassUID.name and n_refused < 3
        n_refused += refused
        return 0xC001 if refused else 0

    archive.answer = answer
    with running(queue, archive) as port:
        send_images(write_images(tmp_path / "study"), port)
        until("the study is done", lambda: state_names(queue) == ["done"])
    assert n_refused == 3
    assert list(archive.taken.values()) == [1, 1]


def test_a_study_that_grows_is_segmented_again(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    """Its last images come while its first result waits for the archive."""
    archive.answer = lambda dataset: 0xA700
    files = write_images(tmp_path / "study")
    with running(queue, archive) as port:
        send_images(files[:4], port)
        until("the first result waits", lambda: state_names(queue) == ["sending"])
        send_images(files[4:], port)
        archive.answer = lambda dataset: 0
        until("both are sent", lambda: len(archive.taken) == 4)
        until("all is done", lambda: state_names(queue) == ["done"])


def test_a_node_that_stops_puts_its_study_back(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    has_begun = threading.Event()

    def endless(images: Path, out: Path, progress: Progress) -> list[Path]:
        has_begun.set()
        while True:
            progress("endless", 0.5)

    with running(queue, archive, process=endless) as port:
        send_images(write_images(tmp_path / "study"), port)
        assert has_begun.wait(DEADLINE_S)
    assert state_names(queue) == ["incoming"]
    with running(queue, archive):
        until("the study is done", lambda: state_names(queue) == ["done"])


def test_a_fault_in_a_thread_does_not_end_it(
    tmp_path: Path, queue: Queue, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbts.node.node.AFTER_FAILED_DISK_S", 0.1)
    failures = [OSError(28, "No space left on device"), KeyError("fault")]
    start = queue.start

    def failing(study: str) -> Path | None:
        if failures:
            raise failures.pop()
        return start(study)

    monkeypatch.setattr(queue, "start", failing)
    with running(queue, archive) as port:
        send_images(write_images(tmp_path / "study"), port)
        until("the study is done", lambda: state_names(queue) == ["done"])
    assert not failures


# Privacy


def test_logs_do_not_name_the_patient(
    tmp_path: Path, queue: Queue, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where something fails with a text that does."""

    def process(images: Path, out: Path, progress: Progress) -> Sequence[Path]:
        dataset = pydicom.dcmread(next(images.iterdir()))
        if fails:
            raise ValueError(f"{dataset.PatientName} {dataset.PatientID}")
        return fake_process(images, out, progress)

    caplog.set_level(logging.DEBUG)
    files, fails = write_images(tmp_path / "study"), True
    dataset = pydicom.dcmread(files[0])
    dataset.PatientBirthDate = "no date"  # pydicom's warnings quote such values
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.generate_uid()
    )
    dataset.save_as(files[0])
    archive.answer = lambda dataset: 0xC001
    with running(queue, archive, process=process) as port:
        send_images(files, port)
        until("the study failed", lambda: state_names(queue) == ["failed"])
        fails = False
        send_images(files, port)
        until("its result is refused", lambda: "refused it with status 0xC001" in caplog.text)
        archive.answer = lambda dataset: 0
        until("the study is done", lambda: state_names(queue) == ["done"])
    ours = [record for record in caplog.records if record.name == "fastbts.node"]
    assert len(ours) > 5
    said = "\n".join(record.getMessage() for record in ours)
    uids = [str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)]
    for secret in ["Sechser", "Hildegard", *PATIENT.values(), *uids]:
        assert secret not in said


# Options


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "host:104", "PACS@host:0", "PACS@host:x"])
def test_a_destination_has_title_host_and_port(text: str) -> None:
    with pytest.raises(OptionsError, match=r"expected AE@HOST:PORT, for example PACS@10\.0\.0\.5"):
        Destination.parse(text)


def test_destinations() -> None:
    assert Destination.parse("PACS@10.0.0.5:104") == Destination("PACS", "10.0.0.5", 104)
    assert Destination.parse("PACS@[::1]:104") == Destination("PACS", "::1", 104)


@pytest.mark.parametrize("aet", ["", " ", "A" * 17, "Ä", "A\\B"])
def test_titles_of_1_to_16_characters(aet: str, queue: Queue, archive: Archive) -> None:
    node = Node(queue, fake_process, Address(aet, 0), archive.destination)
    with pytest.raises(OptionsError, match="expected 1 to 16 ASCII characters"):
        node.run()


def test_a_port_that_is_used(queue: Queue, archive: Archive) -> None:
    node = Node(queue, fake_process, Address(port=archive.port), archive.destination)
    with pytest.raises(OptionsError, match=r"cannot listen here: .*; choose another --host or"):
        node.run()


def test_fake_results_are_the_same_objects_each_time(tmp_path: Path) -> None:
    """What the tests above rely on."""
    write_images(tmp_path / "study", n=2)
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(fake_process(tmp_path / "study/0", tmp_path / name, lambda stage, part: None))
    assert [digest(path) for path in made[0]] == [digest(path) for path in made[1]]
