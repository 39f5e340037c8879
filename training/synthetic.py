"""Writes synthetic cases: `python -m training synthetic --anatomy DIR --shapes FILE --out DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from training.data.anatomy import ShapeFile, read_anatomies
from training.data.synthetic import write_synthetic


def command(
    anatomy: Annotated[
        Path, typer.Option(help="folder of head label maps (*.nii.gz, FreeSurfer labels)")
    ],
    shapes: Annotated[Path, typer.Option(help="file of tumour label maps (.npz)")],
    out: Annotated[Path, typer.Option(help="folder for the cases")],
    n: Annotated[int, typer.Option(help="number of cases")] = 60,
    seed: Annotated[int, typer.Option(help="seed of the series of cases")] = 0,
) -> None:
    """Write synthetic training cases."""
    torch.set_num_threads(1)  # the result depends on the number of threads
    write_synthetic(out, read_anatomies(anatomy), ShapeFile(shapes), n, seed)
