"""Checks, one line each, of `fastbts doctor` and `fastbts verify`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import typer


@dataclass(frozen=True)
class Check:
    """One line of output."""

    name: str
    """What was checked."""
    ok: bool
    """Whether it is correct, or can be used."""
    detail: str
    """What was found; if not ok, also what was expected or how to get it."""


def print_checks(checks: Iterable[Check], as_json: bool) -> None:
    """Prints checks as lines or as JSON."""
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
        return
    for check in checks:
        detail = " ".join(check.detail.split())  # messages of libraries may have several lines
        typer.echo(f"{'ok' if check.ok else '--':3} {check.name:24} {detail}")
