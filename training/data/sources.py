"""Prepares what a run trains and validates on, from the folders that the command names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.progress import track

from fastbts import EngineSpec, FastBTSError, OptionsError
from training.config import Recipe
from training.data.anatomy import ShapeFile
from training.data.cases import (
    Sample,
    TrainingCase,
    engine_spec,
    find_cases,
    prepare_case,
)
from training.data.head_sources import make_brain, read_heads
from training.data.heads import HeadMaker, validation_heads
from training.data.synthetic import load_synthetic
from training.data.teacher import teacher_for


@dataclass(frozen=True)
class Sources:
    """Where the data of a run are; see the options of `training train`."""

    data: Path | None
    cache: Path
    synthetic: Path | None = None
    anatomy: Path | None = None
    shapes: Path | None = None


Prepared = tuple[list[TrainingCase], Sequence[Path] | Sequence[Sample] | None, HeadMaker | None]
"""Cases, what to validate on (None for no validation), and the maker of synthetic heads."""


def cases_of(recipe: Recipe, sources: Sources) -> Prepared:
    """Labelled cases of split `train`, and those of `val`.

    Raises:
        OptionsError: No folder of cases is given.
        FastBTSError: A case cannot be used.
    """
    if sources.data is None:
        raise OptionsError(
            f"--data: recipe {recipe.name} is trained on labelled cases; name a folder"
        )
    spec = engine_spec(recipe)
    cases = list(prepared_cases(sources.data, "train", spec, sources.cache))
    cases += load_synthetic(sources.synthetic) if sources.synthetic else []
    cases = teacher_for(recipe, cases, sources.cache)
    val = _validation(sources.data)
    return cases, val, None


def heads_of(recipe: Recipe, sources: Sources) -> Prepared:
    """A maker of heads; heads with the brains of split `val` to validate on, if there are any.

    Raises:
        OptionsError: No folder of label maps is given.
        FastBTSError: A label map or a case cannot be used.
    """
    if sources.anatomy is None:
        raise OptionsError(
            f"--anatomy: recipe {recipe.name} is trained on synthetic heads; name a folder of head "
            "label maps"
        )
    heads = read_heads(sources.anatomy)
    shapes = ShapeFile(sources.shapes) if sources.shapes else None
    maker, seen = HeadMaker(heads, shapes), HeadMaker(heads, shapes)
    if sources.data is not None:
        # At 1 mm, with the images and labels of glioma: the cases are those of the other recipes.
        spec, folders = EngineSpec(), sources.data
        train = prepared_cases(folders, "train", spec, sources.cache)
        maker = replace(maker, brains=[make_brain(case) for case in train])
        if _validation(folders) is not None:
            val = prepared_cases(folders, "val", spec, sources.cache)
            seen = replace(seen, brains=[make_brain(case) for case in val])
    real = replace(recipe, heads=replace(recipe.heads, real_brain=1.0))
    return [], validation_heads(seen, real), maker


def prepared_cases(data: Path, split: str, spec: EngineSpec, cache: Path) -> Iterator[TrainingCase]:
    """The cases of a split, prepared, one at a time."""
    for folder in track(find_cases(data, split), "preparing cases", disable=not is_first_rank()):
        yield prepare_case(folder, spec, cache)


def _validation(data: Path) -> list[Path] | None:
    try:
        return find_cases(data, "val")
    except FastBTSError as error:
        typer.echo(f"training without validation: {error}", err=True)
        return None


def is_first_rank() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"
