"""A Triton Inference Server on the CPU, from PyPI's nvidia-pytriton (`make triton-env`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS = 3  # a free port may be taken before the server takes it
READY_S = 300.0
STOP_S = 60.0


class NoServerError(RuntimeError):
    """There is no Triton server here, or it does not start; says why."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        http, grpc: "HOST:PORT" of both protocols.
        pid: Its process.
    """

    http: str
    grpc: str
    pid: int


def environment() -> Path:
    """The folder of packages with Triton: FASTBTS_TRITON, or that of `make triton-env`."""
    folder = Path(os.environ.get("FASTBTS_TRITON", ROOT / "build/triton")).resolve()
    if not (folder / "pytriton/tritonserver/bin/tritonserver").is_file():
        raise NoServerError(
            f"no Triton server in {folder}: run `make triton-env`, or set FASTBTS_TRITON to a "
            "folder into which pip installed nvidia-pytriton"
        )
    return folder


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[Server]:
    """Runs `start.sh` of a model repository on the loopback until the block ends.

    The Python of the models is the one that runs this.

    Raises:
        NoServerError: There is no server here, or it ends, or is not ready after five minutes.
    """
    packages = environment()
    with tempfile.TemporaryDirectory() as made:
        backends = _backends(packages, Path(made))
        log = Path(made) / "log"
        start = [str(repository / "start.sh"), f"--backend-directory={backends}", *options]
        process, server = _started(start, _variables(packages), log)
        try:
            yield server
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server; one that does not end by itself is killed."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _backends(packages: Path, folder: Path) -> Path:
    """A folder with Triton's Python backend and its program for this version of Python."""
    triton, version = packages / "pytriton/tritonserver", "{}.{}".format(*sys.version_info)
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise NoServerError(f"{packages}: its Triton has no Python backend for Python {version}")
    python = folder / "backends/python"
    python.mkdir(parents=True)
    for file in (*(triton / "backends/python").glob("*triton_python*"), stub):
        (python / file.name).symlink_to(file)
    return python.parent


def _variables(packages: Path) -> dict[str, str]:
    """PATH leads to the server and the models' Python, LD_LIBRARY_PATH to their libraries."""
    paths = [packages / "pytriton/tritonserver/bin", Path(sys.executable).parent]
    libraries = [packages / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    return {
        **os.environ,
        "PATH": ":".join([*map(str, paths), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": ":".join([*map(str, libraries), os.environ.get("LD_LIBRARY_PATH", "")]),
    }


def _started(
    command: Sequence[str], variables: dict[str, str], log: Path
) -> tuple[subprocess.Popen[bytes], Server]:
    for _ in range(STARTS):
        http, grpc = _free_ports()
        ports = [f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false"]
        hosts = ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *ports, *hosts], env=variables, stdout=output, stderr=output
            )
        if _ready(process, http):
            return process, Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", process.pid)
    raise NoServerError(f"Triton does not start; the end of its log:\n{log.read_text()[-4000:]}")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        return a.getsockname()[1], b.getsockname()[1]


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the models are loaded. False: the server ended, or needs too long."""
    end = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10).close()
            return True
        except OSError:  # URLError, HTTPError: not yet
            time.sleep(0.1)
    process.kill()
    process.wait()
    return False
