"""What the node takes from the network, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastbts.node.queue import Limits, Queue
from fastbts.node.receive import Address, is_loopback
from tests.node.nodes import (
    Archive,
    echo,
    running,
    send_images,
    until,
    write_images,
)
from tests.node.queues import state_names

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def test_only_allowed_callers_may_send(
    tmp_path: Path, queue: Queue, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    files = write_images(tmp_path / "study", n=2)
    with running(queue, archive, address=Address(port=0, allow=("MR1", "MR2"))) as port:
        assert echo(port, calling="MR2") == 0
        assert echo(port, calling="MR3") is None
        assert send_images(files, port, calling="MR3") == []
        assert send_images(files, port, calling="MR1") == [0] * 4
    assert "refused an association: calling AE title 'MR3' at 127.0.0.1, called 'FA" in caplog.text


def test_it_must_be_called_by_its_title(queue: Queue, archive: Archive) -> None:
    with running(queue, archive) as port:
        assert echo(port, aet="OTHER") is None


def test_a_full_queue_refuses_as_out_of_resources(tmp_path: Path, archive: Archive) -> None:
    """And takes the same study when there is room again."""
    first, second = (write_images(tmp_path / str(n), n) for n in range(2))
    queue = Queue(tmp_path / "queue", Limits(max_studies=1))
    archive.answer = lambda dataset: 0xA700
    with running(queue, archive, quiet_s=0.1) as port:
        assert send_images(first, port) == [0] * len(first)
        assert send_images(second, port) == [0xA700] * len(second)
        archive.answer = lambda dataset: 0
        until("the first study is done", lambda: state_names(queue) == ["done"])
        assert send_images(second, port) == [0] * len(second)
        until("both are done", lambda: state_names(queue) == ["done"] * 2)
    queue.close()
    assert len(archive.studies) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda dataset: delattr(dataset, "StudyInstanceUID"),
        lambda dataset: setattr(dataset, "StudyInstanceUID", ""),
    ],
)
def test_an_object_without_a_study_is_refused(
    tmp_path: Path, queue: Queue, archive: Archive, damage: Callable[[Any], None]
) -> None:
    path = write_images(tmp_path / "study", n=2)[0]
    dataset = pydicom.dcmread(path)
    damage(dataset)
    dataset.save_as(path)
    with running(queue, archive) as port:
        assert send_images([path], port) == [0xC000]
    assert state_names(queue) == []


def test_an_object_of_another_uid_than_announced_is_refused(
    tmp_path: Path, queue: Queue, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbts.node.receive._uids", lambda content: ("1.2.3", "1.2.3.4"))
    with running(queue, archive) as port:
        assert send_images(write_images(tmp_path / "study", n=2), port) == [0xA900] * 4
    assert state_names(queue) == []


def test_names_from_the_network_are_no_paths(
    tmp_path: Path, queue: Queue, archive: Archive
) -> None:
    path = write_images(tmp_path / "study", n=2)[0]
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = "../../../escaped"
    dataset.save_as(path)
    with running(queue, archive, quiet_s=3600) as port:
        assert send_images([path], port) == [0]
    (stored,) = queue.folder.glob("incoming/*/images/*")
    assert stored.parents[1].name.isalnum()


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pc", False)],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) == local
