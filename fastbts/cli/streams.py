"""Standard streams that do not stop the work when they are closed or full, or when nobody reads."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


class Stream(io.FileIO):
    """A standard stream that drops what it cannot write, and keeps the first error."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Raises nothing; says that all was written."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def open_streams() -> Stream:
    """Makes `sys.stdout` and `sys.stderr` streams that raise nothing, even if they are closed.

    Returns:
        The standard output.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Else the next file that is opened would get this number, and all messages.
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    stdout, stderr = (Stream(fd, "w", closefd=False) for fd in (1, 2))
    sys.stdout, sys.stderr = _text(stdout, sys.stdout), _text(stderr, sys.stderr)
    return stdout


def close_streams(stdout: Stream, code: int) -> int:
    """Flushes the streams; returns the exit code: 1 instead of 0 if the output was cut off.

    A reader that has closed its end of a pipe, such as `head`, wants no more: no error.
    """
    sys.stdout.flush()
    error = stdout.error
    if error is not None and error.errno != errno.EPIPE:
        print(
            f"error: standard output: cannot write: {error.strerror}; what is printed there is "
            "incomplete, written files are not; give it a file or terminal with space",
            file=sys.stderr,
        )
        code = code or 1
    sys.stderr.flush()
    return code


def _text(raw: Stream, given: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(given, "encoding", None) or "utf-8",
        errors="backslashreplace",  # names of files may have bytes that are no text
        line_buffering=raw.isatty() or raw.fileno() == 2,
    )
