"""Labelled cases in a folder with a table `cases.csv`: columns case, split and optionally group."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from fastbts.errors import CaseError

TABLE = "cases.csv"
MIN_GROUP = 3
"""Fewest cases of a group that is judged by itself; a smaller one joins the largest."""


@dataclass(frozen=True)
class ListedCase:
    """A case folder and its group; "" without groups."""

    folder: Path
    group: str


def case_table(data: Path) -> list[dict[str, str]]:
    """Rows of `cases.csv`.

    Raises:
        CaseError: It cannot be read.
    """
    try:
        with (data / TABLE).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CaseError(
            f"{data / TABLE}: cannot be read: {error}; expected a table with columns case, split "
            "and optionally group"
        ) from error


def listed_cases(data: Path, split: str) -> list[ListedCase]:
    """The cases of a split ("train", "val") in the order of the table.

    Raises:
        CaseError: The table cannot be read, or has no case of that split.
    """
    cases = [
        ListedCase(data / row["case"], row.get("group") or row.get("grade") or "")
        for row in case_table(data)
        if row.get("split") == split and row.get("case")
    ]
    if not cases:
        raise CaseError(
            f"{data / TABLE}: no cases of split {split!r}; expected columns case, split and "
            "optionally group"
        )
    return cases


def balanced(cases: Sequence[ListedCase], n_cases: int) -> list[ListedCase]:
    """At most that many of the cases: the first of each group, then the second of each, ..."""
    groups = [[c for c in cases if c.group == group] for group in Counter(c.group for c in cases)]
    turns = chain.from_iterable(zip_longest(*groups))
    return [case for case in turns if case is not None][:n_cases]


def joined_groups(cases: Sequence[ListedCase]) -> list[ListedCase]:
    """The cases; groups smaller than `MIN_GROUP` join the largest, as in "HGG + 2021"."""
    sizes = Counter(case.group for case in cases)
    largest = max(sizes, key=lambda group: sizes[group])
    small = {group for group, size in sizes.items() if size < MIN_GROUP} | {largest}
    name = " + ".join([largest, *sorted(small - {largest})])
    return [ListedCase(c.folder, name if c.group in small else c.group) for c in cases]
