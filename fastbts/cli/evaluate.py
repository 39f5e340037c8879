"""`fastbts evaluate`: scores of results against reference labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastbts.about import __version__
from fastbts.cli.common import app, reported_errors, tell_error
from fastbts.cli.results import Overwrite
from fastbts.errors import GeometryError, InputError
from fastbts.labels import SCHEMES

if TYPE_CHECKING:
    from fastbts.cohort.pairs import Pairs

Scheme = Annotated[
    str,
    typer.Option(
        help=f"label scheme of the results: auto, {', '.join(SCHEMES)}; auto: by their reports, "
        "else by their values"
    ),
]
ReferenceScheme = Annotated[str, typer.Option(help="label scheme of the references, likewise")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="file for all scores")]
CsvFile = Annotated[Path | None, typer.Option("--csv", help="file for a line per case and region")]


@app.command()
def evaluate(
    results: Annotated[
        Path, typer.Argument(help="label image, or folder that fastbts predict wrote, or others'")
    ],
    references: Annotated[
        Path,
        typer.Argument(
            help="reference label image, folder of images, or folder of cases with *seg.nii.gz"
        ),
    ],
    labels: Scheme = "auto",
    reference_labels: ReferenceScheme = "auto",
    lesions: Annotated[
        bool, typer.Option("--lesions", help="also lesion-wise scores (panoptica)")
    ] = False,
    csv_file: CsvFile = None,
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Scores results against reference labels.

    Dice, HD95 and others of each region. Needs the extra: pip install 'fastbts[evaluate]'.
    """
    from fastbts.cohort.evaluate import score_case
    from fastbts.cohort.pairs import find_pairs
    from fastbts.cohort.schemes import check_known
    from fastbts.write.outputs import check_single

    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    with reported_errors():
        for scheme in (labels, reference_labels):
            check_known(scheme)
        found = find_pairs(results, references)
        for file, suffix in ((csv_file, ".csv"), (json_file, ".json")):
            if file:
                check_single(file, [suffix], overwrite=overwrite, inputs=found.files)
        schemes = _schemes(found, labels, reference_labels)
        for name, pair in found.pairs.items():
            try:
                rows += score_case(name, *pair, **schemes[name], lesions=lesions)
            except (InputError, GeometryError) as error:
                if len(found.pairs) == 1:
                    raise
                tell_error(error)
                failed.append(name)
        if rows:
            _report(rows, csv_file, json_file)
    _tell("results without a reference, not scored", found.alone)
    _tell("references without a result, not in the means", found.missing)
    _tell("not scored because of an error", failed)
    if failed or found.missing:
        raise typer.Exit(3 if rows else 1)


def _schemes(found: Pairs, labels: str, reference_labels: str) -> dict[str, dict[str, Any]]:
    """Name of each case -> schemes of its result and reference; says what is a guess."""
    from fastbts.cohort.pairs import WHOLE
    from fastbts.cohort.schemes import REFERENCE_LABELS, schemes_of

    mine, note = schemes_of((result for result, _ in found.pairs.values()), labels)
    # Regions of an engine have no scheme: the reference has the labels of the result.
    common = [
        reference
        for result, reference in found.pairs.values()
        if not isinstance(mine.get(result.get(WHOLE, Path())), dict)
    ]
    theirs, other = schemes_of(common, reference_labels, REFERENCE_LABELS)
    for side, text in (("results", note), ("references", other)):
        if text:
            typer.echo(f"warning: {side}: {text}", err=True)
    return {
        name: {
            "scheme": mine.get(result.get(WHOLE, Path())),
            "reference_scheme": theirs.get(reference.get(WHOLE, Path())),
        }
        for name, (result, reference) in found.pairs.items()
    }


def _report(rows: list[dict[str, Any]], csv_file: Path | None, json_file: Path | None) -> None:
    """Prints the tables; writes the files."""
    from rich.console import Console

    from fastbts.files import atomic_write, write_json
    from fastbts.scores.console import dice_table, summary_table
    from fastbts.scores.tables import dice_rows, mean_row, summary, write_rows
    from fastbts.write.ours import SCORES, SOFTWARE

    cases, means = dice_rows(rows), summary(rows)
    console = Console()
    console.print(dice_table(cases, {}, "Dice"))
    console.print(summary_table(means, len(cases)))
    if csv_file:
        text = io.StringIO(newline="")
        write_rows(text, rows)
        with atomic_write(csv_file) as file:
            file.write(text.getvalue().encode())
    if json_file:
        mean = mean_row(cases)
        content = {"cases": cases, "mean": mean, "regions": rows, "summary": means}
        about = {"software": {SOFTWARE: __version__}, "kind": SCORES}
        write_json(json_file, {**about, **content})


def _tell(what: str, names: Any) -> None:
    if names:
        typer.echo(f"{len(names)} {what}: {', '.join(names)}", err=True)
