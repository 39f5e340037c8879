"""How much the commands say: -q and -v, before or after the command."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from fastbts.cli import VERBOSITY

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


class Group(TyperGroup):
    """Takes -q and -v also after the name of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Moves them to the front, up to a "--"."""
        end = args.index("--") if "--" in args else len(args)
        flags = [word for word in args[:end] if word in VERBOSITY]
        others = [word for word in args[:end] if word not in VERBOSITY]
        return super().parse_args(ctx, [*flags, *others, *args[end:]])


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Of all commands of this process."""
    global _level
    _level = QUIET if quiet else VERBOSE if verbose else NORMAL


def is_quiet() -> bool:
    """Warnings and errors alone."""
    return _level == QUIET


def is_verbose() -> bool:
    """Also where, how and how long; and where an error comes from."""
    return _level == VERBOSE


def say(text: str) -> None:
    """Prints what was done, unless quiet."""
    if not is_quiet():
        typer.echo(text)


def detail(text: str) -> None:
    """Prints to the error stream, if verbose."""
    if is_verbose():
        typer.echo(text, err=True)
