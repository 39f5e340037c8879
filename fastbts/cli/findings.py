"""What a check found, one line each: for `fastbts doctor` and `fastbts verify`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of a check."""

    name: str
    """What was looked at."""
    ok: bool
    """Whether it is as it should be, or can be used."""
    detail: str
    """What was found; if not ok, also what was expected or how to get it."""
