"""What a command begins before it is parsed: loading the shipped engine.

Importing the libraries of the command line takes a quarter of a second; the network is compiled
meanwhile. A guess that turns out wrong costs time only: `open_engine` takes the engine that was
begun if it is what it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastbts.device.host_cpus import n_cpus
from fastbts.engine.load import load_ahead

OTHER_ENGINE = {
    *("--engine", "--backend", "--device", "--precision", "--trusted-key", "--ray"),
    *("--help", "-h"),
}
"""With one of these options another engine may be wanted, or none."""


def begin(options: Sequence[str]) -> None:
    """Begins what `fastbts predict` or `fastbts demo` needs with these options, in threads."""
    given = dict(zip(options, (*options[1:], ""), strict=False))
    given |= {name: value for name, is_one, value in map(_parts, options) if is_one}
    if OTHER_ENGINE & given.keys():
        return
    folders = _folders(options)
    n_threads, jobs = _number(given, "--threads"), _number(given, "--jobs")
    load_ahead(n_threads, jobs or max(1, min(len(folders), n_threads or n_cpus(), 2)))


def _parts(option: str) -> tuple[str, str, str]:
    return option.partition("=")


def _number(given: dict[str, str], name: str) -> int:
    value = given.get(name, "")
    return int(value) if value.isdecimal() else 0


def _folders(options: Sequence[str]) -> list[str]:
    """The folders among the words, without those that may be the value of an option."""
    words = zip(["", *options], options, strict=False)
    return [word for before, word in words if not before.startswith("-") and os.path.isdir(word)]
