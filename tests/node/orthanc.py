"""Debian's Orthanc, an archive, in a process of its own (apt install orthanc)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastbts.node.send import Destination
from tests.node.nodes import DEADLINE_S, until


def free_ports(n: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True)
class Orthanc:
    """A running archive."""

    port: int
    http_port: int

    @property
    def destination(self) -> Destination:
        return Destination("ORTHANC", "127.0.0.1", self.port)

    def ask(self, path: str, content: Any = None) -> Any:
        """Answer of its REST interface; a POST if there is content."""
        data = None if content is None else json.dumps(content).encode()
        url = f"http://127.0.0.1:{self.http_port}/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, data), timeout=DEADLINE_S
        ) as answer:
            return json.loads(answer.read())

    def find(self, level: str, **query: str) -> list[Any]:
        """What it has of a level: Study, Series or Instance."""
        return self.ask("tools/find", {"Level": level, "Query": query, "Expand": True})


@contextmanager
def orthanc(folder: Path, node_port: int = 0) -> Iterator[Orthanc]:
    """Runs it in a folder; skips where it is not installed."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("Orthanc is not installed: apt install orthanc")
    port, http_port = free_ports(2)
    settings = {
        **{"Name": "test", "DicomAet": "ORTHANC", "DicomCheckCalledAet": True},
        **{"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")},
        **{"DicomPort": port, "HttpPort": http_port, "RemoteAccessAllowed": False},
        **{"Plugins": [], "LuaScripts": []},
        "DicomModalities": {"node": ["FASTBTS", "127.0.0.1", node_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, folder / "orthanc.json"], stderr=log, stdout=log)
    archive = Orthanc(port, http_port)

    def answers() -> bool:
        assert process.poll() is None, (folder / "orthanc.log").read_text()
        with suppress(OSError):
            return bool(archive.ask("system"))
        return False

    try:
        until("Orthanc answers", answers)
        yield archive
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
