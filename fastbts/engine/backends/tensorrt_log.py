"""TensorRT's messages: they go to the logger "fastbts", and the last ones are kept for errors."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
"""TensorRT's severities as levels of `logging`."""
N_KEPT = 50
"""Lines that a loaded plan keeps, so that the memory of a server does not grow with them."""

logger = logging.getLogger("fastbts")


class Log(Protocol):
    """A logger for TensorRT that keeps the last messages, as "SEVERITY: message"."""

    lines: deque[str]


def new_log(trt: Any, n_kept: int | None = N_KEPT) -> Any:
    """A `Log` of TensorRT's own type; None keeps all messages."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        """Keeps the last messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=n_kept)

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(f"{severity.name}: {message}")
            logger.log(LEVELS[severity.name], "TensorRT: %s", message)

    return Messages()


def reason(log: Log) -> str:
    """The last errors, for a message."""
    errors = [line for line in list(log.lines) if "ERROR: " in line]
    return "; ".join(errors[-3:]) or "TensorRT reported no reason"
