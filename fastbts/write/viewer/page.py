"""The page: its parts put together into one HTML file that asks no host for anything.

Text from files is escaped where it goes into HTML, and "<" in JSON, so none of it is read as code.
The content security policy allows the two scripts and the style of the page by their hashes, and
pictures that are in the page itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from fastbts.about import DISCLAIMER, __version__
from fastbts.write.ours import GENERATOR
from fastbts.write.preview import CONVENTION
from fastbts.write.viewer.text import controls, panel
from fastbts.write.words import colours_of

NIIVUE = "niivue-0.69.0.umd.js"
DATA = '<script type="application/json" id="data">'
"""Begins the images and labels of a page; they end at the next tag."""


class Panel(NamedTuple):
    """A result on the page.

    Attributes:
        heading: Above its images; "" for none.
        content: What the script shows, see `images.content`.
    """

    heading: str
    content: Mapping[str, Any]


def page(title: str, panels: Sequence[Panel], sections: str) -> bytes:
    """The page as HTML in UTF-8.

    Args:
        title: Of the page, as text.
        panels: The results, side by side.
        sections: What is beside the images, as HTML.
    """
    style = _file("viewer.css") + _swatches(panels)
    scripts = _file(NIIVUE), _file("viewer.js")
    parts = {
        "generator": f"{GENERATOR}{__version__}",
        "policy": _policy(style, scripts),
        "title": escape(f"{title} - fastbts"),
        "style": style,
        "heading": escape(title),
        "notice": escape(f"{DISCLAIMER[0].upper()}{DISCLAIMER[1:]}"),
        "panels": "\n".join(panel(n, one.heading, one.content) for n, one in enumerate(panels)),
        "controls": controls([one.content for one in panels]),
        "sections": sections,
        "convention": escape(CONVENTION),
        "licences": escape(_file("LICENSES-niivue.txt")),
        "data": as_json([one.content for one in panels]),
        "niivue": scripts[0],
        "script": scripts[1],
    }
    # One pass: no part is searched for names of parts.
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("viewer.html"))
    return text.encode("utf-8", "replace")  # names of files may have bytes that are no text


def as_json(content: Any) -> str:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _policy(style: str, scripts: Sequence[str]) -> str:
    """The content security policy. NiiVue reads its letters from `data:` in itself."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; "
        "img-src data: blob:; connect-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _swatches(panels: Sequence[Panel]) -> str:
    """Colours beside the names of labels; the policy allows no style in elements."""
    names = dict.fromkeys(label["name"] for one in panels for label in one.content["labels"])
    rules = (
        f".swatch-{n} {{ background: rgb({red}, {green}, {blue}); }}\n"
        for n, (red, green, blue) in enumerate(colours_of(names).values())
    )
    several = ".panels { grid-template-columns: minmax(0, 1fr); }\n" if len(panels) == 1 else ""
    return "".join(rules) + several
