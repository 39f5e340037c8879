"""`fastbts listen` and `fastbts queue`: a raw study in, its segmentation in the archive."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fastbts.node.listing import rows
from fastbts.phantom.study import SCANS, coarser, write_study
from tests.cli.commands import run
from tests.node.nodes import (
    DEADLINE_S,
    PATIENT,
    Archive,
    port_of,
    process_of,
    send_images,
    until,
    write_images,
)
from tests.node.orthanc import free_ports, orthanc
from tests.study.made import head
from tests.study.whole import write_fake_brain_engine, write_fake_tumour_engine

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")

UID = pydicom.uid.generate_uid(entropy_srcs=["the study of the test"])


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options: engines that are fast, not good."""
    folder = tmp_path_factory.mktemp("engines")
    tumour = write_fake_tumour_engine(folder / "tumour.fbts")
    brain = write_fake_brain_engine(folder / "brain.fbts")
    return ["--engine", tumour, "--brain-engine", brain, "--threads", 1]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of the phantom with a skull, six series, as a scanner would send them."""
    patient = {**PATIENT, "StudyInstanceUID": UID}
    case = write_study(head(), tmp_path_factory.mktemp("study"), coarser(SCANS, 5), patient=patient)
    return [path for files in case.files.values() for path in files]


def listen(*options: object) -> Any:
    return process_of("-m", "fastbts", "listen", "--quiet-s", 1, *options)


def states(queue: Path) -> list[str]:
    return [row.state for row in rows(queue)]


def check_privacy(lines: list[str]) -> None:
    assert len(lines) > 3
    for secret in ("Sechser", "Hildegard", PATIENT["PatientID"], UID):
        assert secret not in "".join(lines)


@pytest.mark.slow
def test_a_raw_study_comes_back_into_orthanc(
    tmp_path: Path, engines: list[object], study: list[Path]
) -> None:
    (port,) = free_ports(1)
    queue = tmp_path / "queue"
    with orthanc(tmp_path, port) as archive:
        to = f"ORTHANC@127.0.0.1:{archive.port}"
        assert set(send_images(study, archive.port, "ORTHANC")) == {0}
        with listen("--to", to, "--port", port, "--queue", queue, *engines) as (process, lines):
            port_of(lines)
            (whole,) = archive.find("Study", StudyInstanceUID=UID)
            archive.ask("modalities/node/store", [whole["ID"]])
            until("the study is done", lambda: states(queue) == ["done"])
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        check_results(archive)
    check_privacy(lines)


def check_results(archive: Any) -> None:
    """One segmentation on the T1ce, and one report that refers to it, in the same study."""
    assert len(archive.find("Study")) == 1
    (seg,) = archive.find("Series", StudyInstanceUID=UID, Modality="SEG")
    (report,) = archive.find("Series", StudyInstanceUID=UID, Modality="SR")
    (t1ce,) = archive.find("Series", StudyInstanceUID=UID, SeriesDescription="t1_mprage*")
    uid = t1ce["MainDicomTags"]["SeriesInstanceUID"]
    for series in (seg, report):
        (instance,) = series["Instances"]
        text = json.dumps(archive.ask(f"instances/{instance}/tags?simplify"))
        assert uid in text
        assert PATIENT["PatientID"] in text


@pytest.mark.slow
def test_killed_while_it_segments_a_raw_study(
    tmp_path: Path, archive: Archive, engines: list[object], study: list[Path]
) -> None:
    """The real command with `kill -9`, and a study of which a series is missing afterwards."""
    queue = tmp_path / "queue"
    options = ["--to", f"ARCHIVE@127.0.0.1:{archive.port}", "--port", 0, "--queue", queue, *engines]
    with listen(*options) as (process, lines):
        assert set(send_images(study, port_of(lines))) == {0}
        until("the study runs", lambda: states(queue) == ["running"])
        process.kill()
    with listen(*options) as (_, lines):
        until("the study is done", lambda: states(queue) == ["done"])
        assert list(archive.taken.values()) == [1, 1]
        send_images(write_images(tmp_path / "other", 1), port_of(lines))
        until("the other has failed", lambda: states(queue) == ["done", "failed"])
        code, text = run("queue", queue)
        assert (code, "CaseError: study: " in text) == (0, True)
        failed = next(row.study for row in rows(queue) if row.state == "failed")
        assert run("queue", queue, "--retry", failed)[0] == 0
        until("it runs again", lambda: "".join(lines).count(f"{failed}: failed: CaseError") == 2)
    check_privacy(lines)
    assert list(archive.taken.values()) == [1, 1]


def test_a_folder_that_is_no_queue(tmp_path: Path) -> None:
    code, text = run("queue", tmp_path)
    assert (code, "not a queue of `fastbts listen`; give its --queue" in text) == (1, True)


def test_only_failed_studies_are_tried_again(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    code, text = run("queue", tmp_path, "--retry", "abc")
    assert (code, "no failed study abc; failed are: none" in text) == (1, True)
    assert run("queue", tmp_path, "--retry", "all") == (0, "waiting again: none\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "PACS"], "'PACS': expected AE@HOST:PORT"),
        (["--to", "PACS@host:104", "--tls-cert", "a.pem"], "needs both --tls-cert and --tls-key"),
        (["--to", "PACS@host:104", "--to-tls"], "--to-tls needs --tls-cert and --tls-key"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], message: str) -> None:
    code, text = run("listen", "--queue", tmp_path / "queue", *options)
    assert (code, message in text) == (2, True)
    assert not (tmp_path / "queue").exists()


def test_an_engine_that_cannot_be_used_ends_it_at_once(tmp_path: Path) -> None:
    """Not only when the first study has come."""
    to = ["--to", "PACS@host:104", "--queue", tmp_path / "queue"]
    code, text = run("listen", *to, "--device", "cuda:77", "--no-strip")
    assert (code, text.startswith("error: ")) == (1, True)
