"""What all commands share: application, options, progress on a terminal, errors, exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from fastbts.about import __version__
from fastbts.cli.verbosity import Group, is_quiet, is_verbose, set_verbosity
from fastbts.engine.backends import BACKENDS, devices, precisions
from fastbts.errors import DeviceError, FastBTSError, OptionsError, is_out_of_memory

if TYPE_CHECKING:
    from fastbts.progress import Progress

EngineOption = Annotated[
    Path | None, typer.Option("--engine", help="engine file (.fbts); default: the shipped one")
]
EngineArgument = Annotated[
    Path | None, typer.Argument(help="engine file (.fbts); default: the shipped one")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Backend = Annotated[str, typer.Option(help=", ".join(("auto", *BACKENDS)))]
Device = Annotated[str, typer.Option(help=", ".join(("auto", *devices(), "cuda:N")))]
Precision = Annotated[
    str, typer.Option(help=f"{', '.join(('auto', *precisions()))}: if engine and backend have it")
]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 for all")]

app = typer.Typer(
    help="Brain-tumour segmentation from FLAIR, T1, T1ce and T2. "
    "Research use only: not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of a help text
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=Group,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastbts {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no summary of what was done.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also device, windows, times; traces of errors.")
    ] = False,
) -> None:
    # It also keeps Typer from taking the name of the only command that was imported for an
    # argument. No docstring: it would be the help text.
    set_verbosity(quiet, verbose)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A progress bar on a terminal; nothing in a pipe."""
    with overall_bar(1) as progress:
        yield lambda stage, fraction: progress(f"{title}: {stage}", fraction)


def is_terminal(stream: TextIO | None) -> bool:
    """Also where there is no console, as in pythonw."""
    return stream is not None and stream.isatty()


@contextmanager
def overall_bar(n_cases: int) -> Iterator[Callable[[str, float], None]]:
    """A bar over all cases with the time left, on a terminal; nothing in a pipe.

    Yields:
        A function that takes what is done now, and the number of cases that are done, with the
        fraction of the one that runs.
    """
    if is_quiet() or not is_terminal(sys.stderr):
        yield lambda description, done: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    # What is printed meanwhile appears above the bar; in a pipe it must go there all the same.
    redirect = sys.stdout is not None and sys.stdout.isatty()
    console = Console(stderr=True)
    with Bar(
        console=console, transient=True, redirect_stdout=redirect, speed_estimate_period=300
    ) as bar:
        task = bar.add_task("", total=n_cases)
        yield lambda description, done: bar.update(task, completed=done, description=description)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turns our errors into one line and an exit code."""
    try:
        yield
    except FastBTSError as error:
        if is_verbose():
            traceback.print_exc()
        tell_error(error)
        raise typer.Exit(2 if isinstance(error, OptionsError) else 1) from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        tell_error(DeviceError(f"out of memory: {error}; free memory, or use a larger machine"))
        raise typer.Exit(1) from None


def tell_error(error: FastBTSError) -> None:
    """Prints one line on the error stream, also where a library's message has several."""
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
