"""The command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 some of several cases
failed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastbts.cli.streams import close_streams, open_streams
from fastbts.device.host_memory import check_limits
from fastbts.errors import is_out_of_memory

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "predict": ("predict", "demo"),
    "study": ("study",),
    "compare": ("compare",),
    "evaluate": ("evaluate",),
    "verify": ("verify",),
    "listen": ("listen", "queue"),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "engine": ("info", "build", "export-triton", "keygen", "sign", "verify-engine"),
}
"""Module -> its commands, in the order of the help text, which is that of use."""
SEGMENTING = ("predict", "demo")
"""Commands that take the shipped engine unless an option says otherwise."""
LEAST_BYTES = dict.fromkeys((*SEGMENTING, "study"), 1_300_000_000)
"""Address space without which a command is not begun; `predict` needs 1.7 GB for any brain, most
of it as reserves of the threads' allocators."""
LEAST_BYTES_OF_OTHERS = 500_000_000
VERBOSITY = ("-q", "--quiet", "-v", "--verbose")


def main() -> None:
    """Entry point of the `fastbts` command; does not return.

    All that a command wrote is on disk by then, so the process ends at once: unloading the
    interpreter and OpenVINO would take a tenth of a second.
    """
    gc.disable()  # nothing that imports make is garbage, but every collection would look at all
    stdout = open_streams()
    try:
        _run([word for word in sys.argv[1:] if word not in VERBOSITY])
    except SystemExit as done:
        if isinstance(done.code, int):
            os._exit(close_streams(stdout, done.code))
        raise
    except Exception as error:  # of a limit or an import; commands report their own
        if not is_out_of_memory(error):
            raise
        print(
            f"error: out of memory: {error}; free memory, or use a larger machine", file=sys.stderr
        )
        os._exit(close_streams(stdout, 1))


def _run(words: Sequence[str]) -> None:
    command, *options = words or [""]
    needed = LEAST_BYTES.get(command, LEAST_BYTES_OF_OTHERS)
    check_limits(needed, f"fastbts {command}".strip())
    if command in SEGMENTING:
        # Before NumPy is imported: its threads for matrices wait busily, on the cores that load
        # the network meanwhile.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from fastbts.cli.ahead import begin

        begin(options)
    run = _app([module for module, names in COMMANDS.items() if command in names] or COMMANDS)
    gc.freeze()
    gc.enable()
    run()


def _app(modules: Iterable[str]) -> typer.Typer:
    """The application with the commands of some modules, which register themselves in it."""
    for module in modules:
        import_module(f"fastbts.cli.{module}")
    from fastbts.cli.common import app

    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'fastbts.cli' has no attribute {name!r}")
    return _app(COMMANDS)
