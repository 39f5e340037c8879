"""The node with the programs of others: DCMTK's tools and Orthanc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fastbts.node.listing import rows
from fastbts.node.queue import Queue
from fastbts.node.receive import Address
from tests.node.nodes import DEADLINE_S, Archive, running, until, write_images
from tests.node.orthanc import free_ports, orthanc

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a tool of DCMTK; skips where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt install dcmtk")
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


def done(queue: Queue) -> bool:
    return [row.state for row in rows(queue.folder)] == ["done"]


def test_echoscu_gets_an_answer(queue: Queue, archive: Archive) -> None:
    with running(queue, archive) as port:
        assert dcmtk("echoscu", "-aec", "FASTBTS", "127.0.0.1", port).returncode == 0
        assert dcmtk("echoscu", "-aec", "OTHER", "127.0.0.1", port).returncode != 0


def test_storescu_sends_a_folder(tmp_path: Path, queue: Queue, archive: Archive) -> None:
    write_images(tmp_path / "study", n=10)
    with running(queue, archive) as port:
        sent = dcmtk(
            "storescu", "+sd", "+r", "-aec", "FASTBTS", "127.0.0.1", port, tmp_path / "study"
        )
        assert sent.returncode == 0, sent.stderr
        until("the study is done", lambda: done(queue))
    assert list(archive.taken.values()) == [1, 1]


def test_a_study_goes_from_orthanc_to_the_node_and_back(tmp_path: Path, queue: Queue) -> None:
    files = write_images(tmp_path / "study", n=3)
    uid = str(pydicom.dcmread(files[0]).StudyInstanceUID)
    (port,) = free_ports(1)
    with orthanc(tmp_path, port) as archive, running(queue, archive, address=Address(port=port)):
        to = ("-aec", "ORTHANC", "127.0.0.1", archive.port)
        assert dcmtk("storescu", "+sd", "+r", *to, tmp_path / "study").returncode == 0
        (study,) = archive.find("Study", StudyInstanceUID=uid)
        archive.ask("modalities/node/store", [study["ID"]])
        until("the study is done", lambda: done(queue))
        series = archive.find("Series", StudyInstanceUID=uid)
    kinds = sorted(one["MainDicomTags"]["SeriesInstanceUID"] for one in series)
    assert len(kinds) == len(set(kinds)) == 4  # two of images, and the results
