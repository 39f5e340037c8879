"""The commands of training: `python -m training COMMAND`. Exit codes: 0 fine, 1 failed, 2 usage."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fastbts.errors import FastBTSError, OptionsError

COMMANDS = {
    "train": "Train the network of a recipe, or continue an interrupted run.",
    "average": "Write the mean of networks with a common start.",
    "export": "Write the network of a checkpoint as an engine file.",
    "tune": "Choose an engine's temperatures, thresholds and small-part rules.",
    "evaluate": "Score an engine on labelled cases.",
    "learning": "Show how Dice grew with training.",
    "brain": "Score an engine for brain masks.",
    "confidence": "Check the confidence of an engine's results and propose its limits.",
    "focus": "Compare focus with the whole brain.",
    "ablate": "Compare mechanisms, cases and steps by many small trainings.",
    "prompts": "Write the text embeddings of the prompts.",
    "synthetic": "Write synthetic training cases.",
}
"""Name of a command and of its module -> its help."""


class Commands(TyperGroup):
    """The commands as a group that imports a command's module only when the command runs.

    PyTorch and Lightning take seconds to import; the list of commands must not wait for them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command without its options, for the list of commands."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that runs."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)


@app.callback()
def training() -> None:
    """Training of the fastbts networks."""


def load_command(name: str) -> Any:
    """Imports `training.NAME` and makes a command of its function `command`."""
    module = importlib.import_module(f"training.{name}")
    single = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    single.command(name)(module.command)
    return typer.main.get_command(single)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits; an error that a user can act on becomes one line."""
    try:
        app(arguments)
    except (FastBTSError, OSError) as error:
        typer.echo(f"error: {_message(error)}", err=True)
        sys.exit(2 if isinstance(error, OptionsError) else 1)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    main()
