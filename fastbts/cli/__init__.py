"""The command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 some of several
cases failed.
"""

from __future__ import annotations

import os
import sys

from fastbts.cli import bench, doctor, engine, predict, verify
from fastbts.cli.common import app

__all__ = ["app", "bench", "doctor", "engine", "main", "predict", "verify"]


def main() -> None:
    """Entry point of the `fastbts` command; does not return.

    All that a command wrote is on disk by then, so the process ends at once: unloading the
    interpreter and OpenVINO would take a tenth of a second.
    """
    try:
        app()
    except SystemExit as done:
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(done.code, int):
            os._exit(done.code)
        raise
