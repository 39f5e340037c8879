"""How long the guards run: a little in `make test`, at length in `make guards`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from fastbts import FastBTSError

T = TypeVar("T")
AT_LENGTH = "FASTBTS_GUARDS" in os.environ


def budget(short: T, long: T) -> T:
    """`long` in `make guards`, else `short`."""
    return long if AT_LENGTH else short


def examples(short: int, long: int) -> settings:
    """So many random examples; the same ones on every run, but other ones in `make guards`."""
    return settings(
        max_examples=budget(short, long),
        deadline=None,
        derandomize=not AT_LENGTH,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def only(kind: type[FastBTSError]) -> Iterator[None]:
    """Allows errors of this kind, of one line; any other fails the test."""
    try:
        yield
    except kind as error:
        if "\n" in str(error):
            pytest.fail(f"more than one line: {error}")
