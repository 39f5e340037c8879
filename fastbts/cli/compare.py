"""`fastbts compare`: how the tumour of one result has changed in a later one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fastbts.cli.common import app, reported_errors
from fastbts.cli.results import Overwrite
from fastbts.cli.verbosity import say
from fastbts.files import write_json, write_set
from fastbts.results.compare import Comparison
from fastbts.results.compare import compare as compare_results
from fastbts.results.page import HEAD, comparison_page, in_words
from fastbts.results.saved import read_result
from fastbts.write.ours import listed_files
from fastbts.write.outputs import PAGES, check_single


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="first result: its folder, report or image")],
    after: Annotated[Path, typer.Argument(help="later result of the same patient")],
    json: Annotated[Path | None, typer.Option(help="also write this JSON file")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="also write this page of both, for results that have one (--html)"),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=0, help="days between the examinations, if the results do not say"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compares two results of one patient. Prints the change of each region in ml and percent."""
    with reported_errors():
        results = read_result(before), read_result(after)
        _check_files(json, html, overwrite, [one.path for one in results])
        comparison = compare_results(*results, days=days)
        page = comparison_page(comparison) if html else b""
        with write_set() as new_file:
            if html:
                with new_file(html) as file:
                    file.write(page)
            if json:
                write_json(json, comparison.report(), new_file)
    for line in _table(comparison):
        typer.echo(line)
    if comparison.days is not None:
        typer.echo(f"{comparison.days} days between the examinations")
    for warning in comparison.warnings:
        typer.echo(f"warning: {warning}", err=True)
    written = [str(path) for path in (html, json) if path]
    if written:
        say(f"wrote {', '.join(written)}")


def _check_files(
    json: Path | None, html: Path | None, overwrite: bool, reports: list[Path]
) -> None:
    """Finds out, before the work, whether the files can be written; never over the results."""
    inputs = [*reports, *(r.with_name(name) for r in reports for name in listed_files(r))]
    if json:
        check_single(json, [".json"], overwrite=overwrite, inputs=inputs)
    if html:
        check_single(html, PAGES, overwrite=overwrite, inputs=inputs)


def _table(comparison: Comparison) -> Iterator[str]:
    rows = [HEAD, *((region, *in_words(one)) for region, one in comparison.changes.items())]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    for row in rows:
        name, *values = (
            text.rjust(width) if n else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([name, *values]).rstrip()
