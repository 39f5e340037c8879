"""TensorRT's messages: they go to the logger "fastbts", and errors have the last of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
"""TensorRT's severities as levels of `logging`."""

logger = logging.getLogger("fastbts")


class Log(Protocol):
    """A logger for TensorRT. It keeps no message, as it lives as long as the process.

    Attributes:
        collectors: Lists to which each message is added, as "SEVERITY: message"; by their ids.
    """

    collectors: dict[int, list[str]]


@cache
def shared_log(trt: Any) -> Any:
    """The `Log` of a package of TensorRT, of TensorRT's own type.

    TensorRT has one logger in a process: the first one that it is given, while anything uses it.
    """

    class Messages(trt.ILogger):  # type: ignore[misc]
        """Passes each message on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.collectors: dict[int, list[str]] = {}

        def log(self, severity: Any, message: str) -> None:
            for lines in list(self.collectors.values()):
                lines.append(f"{severity.name}: {message}")
            logger.log(LEVELS[severity.name], "TensorRT: %s", message)

    return Messages()


@contextmanager
def collected(log: Log) -> Iterator[list[str]]:
    """What is logged in the block, in any thread."""
    lines: list[str] = []
    log.collectors[id(lines)] = lines
    try:
        yield lines
    finally:
        del log.collectors[id(lines)]


def reason(lines: list[str]) -> str:
    """The last errors, for a message."""
    errors = [line for line in lines if "ERROR: " in line]
    return "; ".join(errors[-3:]) or "TensorRT reported no reason"
