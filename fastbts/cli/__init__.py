"""The command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 some of several
cases failed.
"""

from __future__ import annotations

import os

from fastbts.cli import bench, doctor, engine, listen, predict, study, verify
from fastbts.cli.common import app
from fastbts.cli.streams import close_streams, open_streams

__all__ = ["app", "bench", "doctor", "engine", "listen", "main", "predict", "study", "verify"]


def main() -> None:
    """Entry point of the `fastbts` command; does not return.

    All that a command wrote is on disk by then, so the process ends at once: unloading the
    interpreter and OpenVINO would take a tenth of a second.
    """
    stdout = open_streams()
    try:
        app()
    except SystemExit as done:
        if isinstance(done.code, int):
            os._exit(close_streams(stdout, done.code))
        raise
