"""Nodes, images and archives for tests: all on the loopback, on free ports."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastbts.node.node import Node
from fastbts.node.queue import Queue
from fastbts.node.receive import Address
from fastbts.node.send import Destination
from fastbts.phantom.study import FLAIR, T1CE
from fastbts.progress import Progress
from tests.study.made import write_series

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")
pynetdicom = pytest.importorskip("pynetdicom", reason="needs fastbts[dicom]")

DEADLINE_S = 240  # for a machine with much else to do
PATIENT = {"PatientName": "Sechser^Hildegard", "PatientID": "ID770077"}
ROOT = Path(__file__).resolve().parents[2]


def until(what: str, true: Callable[[], Any]) -> Any:
    """Waits until something is true."""
    end = time.monotonic() + DEADLINE_S
    while not (value := true()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)
    return value


def write_images(folder: Path, number: int = 0, n: int = 3) -> list[Path]:
    """Two series of a small study; another one for each number."""
    header = {
        **PATIENT,
        "StudyInstanceUID": pydicom.uid.generate_uid(entropy_srcs=[f"study {number}"]),
    }
    return [
        path
        for k, scan in enumerate((FLAIR, T1CE))
        for path in write_series(folder / str(k), scan, 10 * number + k, n, header)
    ]


def fake_process(images: Path, out: Path, progress: Progress) -> list[Path]:
    """Two small objects instead of a segmentation; UIDs depend on the images, as the real ones."""
    progress("fake", 0.5)
    names = sorted(path.name for path in images.iterdir())
    source = pydicom.dcmread(images / names[0], stop_before_pixels=True)
    classes = pynetdicom.sop_class
    kinds = {
        "seg.dcm": classes.SegmentationStorage,
        "seg.sr.dcm": classes.ComprehensiveSRStorage,
    }
    for name, kind in kinds.items():
        dataset = pydicom.Dataset()
        dataset.SOPClassUID = kind
        dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[name, *names])
        dataset.StudyInstanceUID = source.StudyInstanceUID
        dataset.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["series", name, *names])
        dataset.PatientID, dataset.PatientName = source.PatientID, source.PatientName
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        pydicom.dcmwrite(out / name, dataset, enforce_file_format=True)
    return [out / name for name in kinds]


class Archive:
    """A peer that counts what it takes; `answer` may refuse, or do something first."""

    def __init__(self, port: int = 0, tls: Any = None) -> None:
        self.taken: Counter[str] = Counter()
        self.studies: set[str] = set()
        self.answer: Callable[[Any], int] = lambda dataset: 0
        entity = pynetdicom.AE("ARCHIVE")
        entity.require_called_aet = True
        for context in pynetdicom.AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, ssl_context=tls,
            evt_handlers=[(pynetdicom.evt.EVT_C_STORE, self._store)],
        )  # fmt: skip
        self.port = self._server.server_address[1]

    def _store(self, event: Any) -> int:
        status = self.answer(event.dataset)
        if status == 0:
            self.taken[str(event.dataset.SOPInstanceUID)] += 1
            self.studies.add(str(event.dataset.StudyInstanceUID))
        return status

    @property
    def destination(self) -> Destination:
        return Destination("ARCHIVE", "127.0.0.1", self.port)

    def close(self) -> None:
        if self._server in self._server.ae._servers:
            self._server.shutdown()


def send_images(
    files: Sequence[Path],
    port: int,
    aet: str = "FASTBTS",
    calling: str = "SCANNER",
    answer_s: float = DEADLINE_S,
    breaks_off: bool = False,
    **options: Any,
) -> list[int]:
    """Statuses of C-STORE, one per file; none where the association was refused or broke."""
    entity, statuses = pynetdicom.AE(calling), []
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = answer_s
    for file in files:
        meta = pydicom.dcmread(file, stop_before_pixels=True).file_meta
        if meta.MediaStorageSOPClassUID not in [
            c.abstract_syntax for c in entity.requested_contexts
        ]:
            entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=aet, **options)
    if association.is_established:  # else each image waits for an acknowledgement, 40 ms
        association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for file in files:
        if not association.is_established:
            return statuses
        status = association.send_c_store(file)
        if "Status" in status:
            statuses.append(status.Status)
    if breaks_off:
        association.abort()
    else:
        association.release()
    return statuses


def echo(port: int, aet: str = "FASTBTS", calling: str = "SCANNER", **options: Any) -> int | None:
    """Status of C-ECHO; None where the association was refused."""
    entity = pynetdicom.AE(calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 20
    entity.add_requested_context(pynetdicom.sop_class.Verification)
    association = entity.associate("127.0.0.1", port, ae_title=aet, **options)
    if not association.is_established:
        return None
    status = association.send_c_echo().get("Status")
    association.release()
    return status


@contextmanager
def running(queue: Queue, archive: Any, **options: Any) -> Iterator[int]:
    """A node in this process, with the fake segmentation; gives its port."""
    options = {"process": fake_process, "address": Address(port=0), "quiet_s": 0.3, **options}
    options = {"destination": archive.destination, "retry_s": (0.1, 0.2), **options}
    node, ports = Node(queue, **options), []
    thread = threading.Thread(target=node.run, args=[ports.append])
    thread.start()
    try:
        yield until("the node listens", lambda: ports and ports[0])
    finally:
        node.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@contextmanager
def process_of(*command: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process, and the lines that it has written on its error stream so far."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr
    reader = threading.Thread(target=lines.extend, args=[process.stderr], daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join(DEADLINE_S)
        process.stderr.close()


def port_of(lines: list[str]) -> int:
    """Port in the log of a node that has started."""

    def found() -> int | None:
        told = [line for line in lines if " listens on " in line]
        return int(told[0].rsplit(":", 1)[1]) if told else None

    return until("the node listens", found)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
