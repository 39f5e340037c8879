"""The command line. Exit codes: 0 fine, 1 failed, 2 usage, 3 some cases of many failed."""

from __future__ import annotations

from fastbts.cli import check, engine, predict
from fastbts.cli.common import app

__all__ = ["app", "check", "engine", "main", "predict"]


def main() -> None:
    """Entry point of the `fastbts` command."""
    app()
