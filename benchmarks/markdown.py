"""Markdown for the READMEs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], note: str = "") -> str:
    """A Markdown table, then a note."""
    columns = list(columns)
    lines = [_line(columns), "|---" * len(columns) + "|", *map(_line, rows)]
    return "\n".join([*lines, "", textwrap.fill(note, 100)] if note else lines)


def _line(cells: Iterable[str]) -> str:
    return re.sub(r" +", " ", f"| {' | '.join(cells)} |")
