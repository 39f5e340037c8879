"""A contender in a process of its own, and what one process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.registry import CONTENDERS

ROOT = Path(__file__).resolve().parents[2]
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Lets Python keep the bytecode of a checkout, which installed packages have."""


class ContenderError(RuntimeError):
    """A contender cannot run here."""


class Process:
    """A worker that has loaded its contender.

    Attributes:
        loaded: Its first answer: load_s, about and peak_mb.
        started: When it was started, by time.perf_counter.
    Raises:
        ContenderError: Something is not installed, or fails.
    """

    def __init__(self, name: str, kit: Kit, machine: Machine) -> None:
        request = {
            "contender": name,
            "kit": str(kit.folder),
            "engine": str(kit.engine),
            "int8_engine": str(kit.int8_engine),
            "n_threads": machine.n_threads,
            "device": machine.device,
        }
        self.name, self.started = name, time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **BYTECODE, **CONTENDERS[name].environment},
        )
        self.loaded = self._answer()

    def predict(self, images: Path, affine: Any, out: Path | None = None) -> dict[str, Any]:
        """See `worker.predicted`; with peak_mb."""
        request = {"images": str(images), "affine": affine.tolist(), "out": str(out or "")}
        return self._asked({"do": "predict", **request})

    def predict_files(self, folders: Sequence[Path], out: Path) -> dict[str, Any]:
        """See `worker.predicted_files`; with peak_mb. Writes into a folder of its name in `out`."""
        own = out / self.name
        own.mkdir(exist_ok=True)
        request = {"folders": [str(folder) for folder in folders], "out": str(own)}
        return self._asked({"do": "files", **request})

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            self.close()
            raise ContenderError(f"{self.name}: {answer['error']}")
        return answer


def peak_mb_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Largest resident memory of a command in MB.

    It is started by a small process: on Linux a new process counts its parent's memory as its own.
    """
    run = "import subprocess, sys, resource as r; subprocess.run(sys.argv[1:], check=True); "
    tell = "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", run + tell, *command],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout.split()[-1]) * unit / 1e6
