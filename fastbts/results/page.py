"""Two results on one page, from the pages that they were written with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbts.errors import InputError
from fastbts.results.compare import Change, Comparison
from fastbts.results.saved import SavedResult
from fastbts.write.ours import UNREADABLE, is_unchanged, listed_files
from fastbts.write.outputs import PAGES
from fastbts.write.viewer.page import DATA, Panel, page
from fastbts.write.viewer.text import provenance, section, table, warnings
from fastbts.write.words import one_line

TITLE = "Follow-up"
HEAD = ("Region", "ml before", "ml after", "change", "%")
"""Of the table of changes."""
AXES = "xyz"
SIDE = ("first", "step", "size", "n")
"""What the page says about the shown part of each axis."""


def comparison_page(comparison: Comparison) -> bytes:
    """One HTML file with the images of both results, the changes, and what made them.

    Raises:
        InputError: A result has no page, or it was changed since.
    """
    results = {"Before": comparison.before, "After": comparison.after}
    contents = {when: _content(result) for when, result in results.items()}
    panels = [
        Panel(_heading(when, contents[when]["name"], results[when]), contents[when])
        for when in results
    ]
    facts = (
        provenance(result.report, title=f"Provenance: {when.lower()}")
        for when, result in results.items()
    )
    parts = [_changes(comparison), warnings(comparison.warnings), *facts]
    return page(TITLE, panels, "\n".join(parts))


def in_words(change: Change) -> tuple[str, str, str, str]:
    """A region's volumes, and its change, in ml and percent."""
    if change.percent is not None:
        percent = f"{change.percent:+.1f}"
    else:
        percent = "new" if change.after_ml else "-"
    return f"{change.before_ml:.1f}", f"{change.after_ml:.1f}", f"{change.ml:+.1f}", percent


def _changes(comparison: Comparison) -> str:
    rows = [[region, *in_words(change)] for region, change in comparison.changes.items()]
    days = comparison.days
    apart = f"<p>{int(days)} days between the examinations.</p>" if days is not None else ""
    return section("Change", table(HEAD, rows) + apart)


def _heading(when: str, name: str, result: SavedResult) -> str:
    day = f", {result.date.isoformat()}" if result.date else ""
    return f"{when}: {one_line(name)}{day}"


def _content(result: SavedResult) -> dict[str, Any]:
    """Images and labels in the page of a result."""
    listed = {result.path.with_name(n): digest for n, digest in listed_files(result.path).items()}
    pages = [path for path in listed if path.suffix.lower() in PAGES]
    if not pages:
        raise InputError(
            f"{result.path}: the result has no page with its images; expected viewer.html beside "
            "it; segment the case again with --html (in Python: save(html=...))"
        )
    if len(pages) > 1:
        names = ", ".join(path.name for path in pages)
        raise InputError(
            f"{result.path}: expected one page with the images of the result, got {names}; segment "
            "the case again with --html"
        )
    (path,) = pages
    try:
        if not is_unchanged(path, listed[path]):
            raise ValueError("missing, or changed since the report was written")
        return _parsed(path)
    except UNREADABLE as error:
        raise InputError(
            f"{path}: cannot be used: {error}; segment the case again with --html"
        ) from error


def _parsed(path: Path) -> dict[str, Any]:
    """The only result of a page; raises one of UNREADABLE if it has another content than ours."""
    _, begin, rest = path.read_text("utf-8").partition(DATA)
    (content,) = json.loads(rest.partition("</script>")[0] if begin else "")
    if not content["images"] or {len(content["sides"]), len(content["centre"])} != {len(AXES)}:
        raise ValueError(f"expected images, and sides and a centre of {len(AXES)} axes")
    return {
        "name": str(content["name"]),
        "images": _texts(content["images"]),
        "mask": str(content["mask"]),
        "labels": [
            {
                "name": str(label["name"]),
                "value": int(label["value"]),
                "colour": [int(part) for part in label["colour"]],
            }
            for label in content["labels"]
        ],
        "regions": {
            str(region): [str(name) for name in names]
            for region, names in content["regions"].items()
        },
        "centre": [int(at) for at in content["centre"]],
        "sides": [{key: int(side[key]) for key in SIDE} for side in content["sides"]],
    }


def _texts(texts: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): str(text) for name, text in texts.items()}
